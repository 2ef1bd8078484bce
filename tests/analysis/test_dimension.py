"""Intrinsic dimension with error bars, and a sample size that suffices."""

import importlib.util
import sys

import jax
import numpy as np
import pytest

from hjcontrol.analysis import dimension as dm
from tests.oracles.two_nearest import TwoNearest

KEY = jax.random.key(0)
INSTALLED = importlib.util.find_spec("skdim") is not None


def sheet(n=600, noise=0.0, seed=0):
    """A rolled sheet, two-dimensional, in six dimensions."""
    draw = np.random.default_rng(seed)
    u, v = draw.uniform(0, 3, (2, n))
    flat = np.column_stack([np.cos(u), np.sin(u), u, v, 0.3 * v, np.sin(v)])
    return flat + noise * draw.normal(size=flat.shape)


def test_a_sheet_is_two_dimensional_within_the_error_bar():
    found = dm.intrinsic_dimension(sheet(), [TwoNearest()], key=KEY)
    assert abs(found.values[0] - 2) < 3 * found.errors[0]
    assert 0.02 < found.errors[0] < 0.4
    # the twin: the same sheet in noise of its own size fills space
    assert dm.intrinsic_dimension(sheet(noise=0.5), [TwoNearest()], key=KEY).values[0] > 4


def test_the_error_bar_is_the_spread_over_samples():
    spread = np.std([TwoNearest().fit(sheet(seed=s)).dimension_ for s in range(20)])
    bars = [
        dm.intrinsic_dimension(sheet(seed=s), [TwoNearest()], key=KEY, halves=24).errors[0]
        for s in range(2)
    ]
    assert 0.5 < np.mean(bars) / spread < 2.0


def test_repeated_points_are_left_out_and_said():
    X = np.vstack([sheet(), sheet()[:50]])
    found = dm.intrinsic_dimension(X, [TwoNearest()], key=KEY)
    assert found.duplicates == 50
    assert "50 repeated" in str(found)
    assert found.values[0] == dm.intrinsic_dimension(sheet(), [TwoNearest()], key=KEY).values[0]


@pytest.mark.skipif(not INSTALLED, reason="scikit-dimension is not installed (extra `dimension`)")
def test_estimators_by_name():
    found = dm.intrinsic_dimension(sheet(), key=KEY)
    assert found.names == ("TwoNN", "MLE", "CorrInt")
    np.testing.assert_allclose(found.values, 2, atol=0.4)
    # the twin: one global plane cannot follow the roll
    assert dm.intrinsic_dimension(sheet(), ["lPCA"], key=KEY).values[0] > 3
    with pytest.raises(ValueError, match="has no 'Nothing'"):
        dm.intrinsic_dimension(sheet(), ["Nothing"], key=KEY)


def test_without_the_extra_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "skdim", None
    )  # what an import finds where it is not installed
    with pytest.raises(ImportError, match=r"pip install 'hjcontrol\[dimension\]'"):
        dm.intrinsic_dimension(sheet(), key=KEY)


@pytest.mark.parametrize("eps", [0.0, 0.01])
def test_the_sample_size_is_the_least_over_every_width(eps):
    given = {"dimension": 2.5, "ambient": 8, "smoothness": 2.0, "constant": 1.5, "noise": 0.4}
    found = dm.sample_size(0.2, **given, eps=eps)
    N = np.arange(1, 2000)
    left = 0.2 - 1.5 * N ** (-2 / 2.5) - eps * np.log(N)
    needed = np.full(len(N), np.inf)
    needed[left > 0] = 0.4**2 * N[left > 0] * 9 / left[left > 0] ** 2
    assert found.samples == int(np.ceil(needed.min()))
    assert found.atoms == N[np.argmin(needed)]
    terms = found.width_term + found.temperature_term
    assert terms + found.noise_term <= 0.2 * (1 + 1e-12)
    # the twin: a sample fewer and the bound is above it, at the best width too
    assert terms + 0.4 * np.sqrt(found.atoms * 9 / (found.samples - 1)) > 0.2


def test_too_warm_is_said_with_the_least_that_can_be_had():
    with pytest.raises(ValueError, match="no width brings the bound"):
        dm.sample_size(0.1, dimension=2, ambient=4, smoothness=1, constant=1, noise=0.1, eps=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dm.intrinsic_dimension(np.zeros((100, 3)), key=KEY), "20 different points"),
        (lambda: dm.intrinsic_dimension(np.zeros(100), key=KEY), "points"),
        (
            lambda: dm.sample_size(-1, dimension=1, ambient=1, smoothness=1, constant=1, noise=1),
            "error",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
