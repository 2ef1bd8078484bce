"""Exponents on a grid: exact laws are read exactly, and a schedule cannot pass for one."""

import jax
import numpy as np
import pytest

from hjcontrol.reproduction.questions import scaling as sc

N = np.array([10.0, 20.0, 50.0, 100.0, 200.0])
EPS = np.array([0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005])
KEY = jax.random.key(4)


def noisy(law, repeats=6, size=0.1, seed=0):
    draw = np.random.default_rng(seed)
    clean = law(N[:, None, None], EPS[None, :, None])
    return clean * np.exp(size * draw.normal(size=(len(N), len(EPS), repeats)))


def test_a_product_of_powers_is_read_exactly():
    found = sc.scaling(N, EPS, 3 * N[:, None] ** -1.5 * EPS[None] ** 0.4, key=KEY)
    assert found.alpha.value == pytest.approx(1.5, abs=1e-13)
    assert found.beta.value == pytest.approx(0.4, abs=1e-13)
    assert found.separable < 1e-13
    path = found.schedule(0.5)
    assert path.exponent.value == pytest.approx(1.7, abs=1e-12)
    assert path.imposed.value == pytest.approx(0.2, abs=1e-12)


def test_an_imposed_schedule_is_unmasked():
    """An error that knows eps only: along eps = 1/N it looks like N^-1, and the grid says who did it."""
    found = sc.scaling(N, EPS, noisy(lambda n, eps: 0.1 * eps + 0 * n), key=KEY)
    assert found.alpha.holds(0.0)
    assert found.beta.holds(1.0)
    path = found.schedule(1.0)
    off, bar = path.exponent.value - 1, path.exponent.high - path.exponent.low
    assert abs(off) < 0.75 * bar < 0.1  # three deviations; the bar is four
    assert abs(path.width.value) < 0.1
    assert "imposes" in str(path)
    # the twin: an error that knows N only is not blamed on the schedule
    other = sc.scaling(N, EPS, noisy(lambda n, eps: n**-1.0 + 0 * eps), key=KEY).schedule(1.0)
    assert abs(other.imposed.value) < 0.1
    assert other.width.holds(1.0)


def test_a_schedule_is_refused():
    with pytest.raises(ValueError, match="cannot be told apart"):
        sc.scaling(N, 1 / N, 0.1 / N, key=KEY)
    with pytest.raises(ValueError, match="two different"):
        sc.scaling(N, EPS[:1], np.ones((len(N), 1)), key=KEY)


def test_a_law_that_is_no_product_says_so():
    found = sc.scaling(N, EPS, noisy(lambda n, eps: 0.1 * eps + 2 * n**-2.0), key=KEY)
    assert found.separable > 0.3
    assert found.alpha_at(0).high < 1.9  # smallest eps first, exponent 2 not reached
    assert found.alpha_at(0).low > found.alpha_at(len(EPS) - 1).high
    assert found.beta_at(len(N) - 1).low > found.beta_at(0).high


@pytest.mark.parametrize("repeats", [1, 6])
def test_intervals_cover_the_truth_about_as_often_as_they_say(repeats):
    hits = 0
    for seed in range(60):
        errors = noisy(lambda n, eps: n**-0.7 * eps**0.3, repeats, 0.3, seed)
        hits += sc.scaling(N, EPS, errors, key=jax.random.key(seed), resamples=200).alpha.holds(0.7)
    assert 48 <= hits <= 60  # 95 % nominal; six repeats make a percentile bootstrap a little short


def test_published_exponents_depend_on_the_convention():
    """The theory's table 13.2, 2.9, 4.2, 2.6 is smoothness 1 and loss power 1; both are arguments."""
    ones = [sc.effective_dimension(a, smoothness=1, loss_power=1) for a in sc.PUBLISHED.values()]
    assert ones == pytest.approx([13.2, 2.9, 4.2, 2.6], abs=0.05)
    kaplan = sc.PUBLISHED["language, parameters (Kaplan 2020)"]
    assert sc.effective_dimension(kaplan, smoothness=1, loss_power=2) == pytest.approx(
        26.3, abs=0.1
    )
    assert sc.effective_dimension(kaplan, smoothness=2, loss_power=2) == pytest.approx(
        52.6, abs=0.1
    )
    with pytest.raises(TypeError):
        sc.effective_dimension(kaplan)  # the twin: no convention, no dimension


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sc.scaling(N, EPS, np.ones((2, 2)), key=KEY), "errors"),
        (lambda: sc.scaling(N, EPS, -np.ones((5, 7)), key=KEY), "positive"),
        (lambda: sc.effective_dimension(-1.0, smoothness=1, loss_power=1), "positive alpha"),
        (lambda: sc.scaling(N, EPS, np.ones((5, 7)), key=KEY).schedule(9.0), "outside the grid"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
