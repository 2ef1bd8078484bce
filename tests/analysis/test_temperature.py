"""Which eps: a window with units, the crossover's power law, three ways that choose three things."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.analysis import robustness, temperature
from hjcontrol.layers import LSE
from tests.agreement import assert_agree
from tests.analysis.pieces import layer, points

GRID = jnp.geomspace(0.02, 2.0, 9)


def test_the_window_has_units_and_the_heuristic_has_none():
    here = temperature.window(64, 2, side=4.0, t=0.5)
    there = temperature.window(64, 2, side=4.0 * 3.0, t=0.5 * 7.0)  # lengths by 3, times by 7
    factor = 9.0 / 7.0
    assert_agree(there.floor, factor * here.floor)
    assert_agree(there.ceiling, factor * here.ceiling)
    assert float(there.heuristic) == float(here.heuristic)  # the twin: it does not change with them
    assert float(here.floor) == pytest.approx(4.0**2 / 64 / 0.5)
    assert float(here.heuristic) not in here
    assert float(jnp.sqrt(here.floor * here.ceiling)) in here
    assert "length^2/time" in str(here)


def test_the_published_heuristics_lie_above_the_window():
    """16 points, MNIST 3v7, dense MNIST (d = 2), twelve neurons (d = 2): the published eps*."""
    for atoms, value in ((16, 0.25), (120, 0.0913), (2000, 0.02236), (12, 0.2887)):
        found = temperature.window(atoms, 2)
        assert float(found.heuristic) == pytest.approx(value, abs=1e-4)
        assert float(found.heuristic) > float(found.ceiling)
        assert not found.empty
    assert temperature.window(1000, 4).empty
    assert "EMPTY" in str(temperature.window(1000, 4))
    assert "by_validation" in str(temperature.window(1000, 4))
    assert "by_validation" not in str(temperature.window(1000, 2))


@pytest.mark.parametrize(("atoms", "d"), [(200, 64), (1000, 4), (50, 3.5)])
def test_an_empty_window_says_what_would_open_it(atoms, d):
    found = temperature.window(atoms, d)
    assert found.empty
    enough = found.fills_dimension
    assert not temperature.window(atoms, enough * 0.999).empty
    assert temperature.window(atoms, enough * 1.001).empty  # the twin: no larger dimension does
    assert f"dimension {enough:.3g} or less" in str(found).replace("\n  ", " ")
    log_n = found.fills_atoms * np.log(10)
    assert log_n == pytest.approx(np.exp(log_n / d), rel=1e-9)
    assert log_n > np.log(atoms)
    if log_n < 30:
        assert not temperature.window(int(1.01 * np.exp(log_n)), d).empty
        assert temperature.window(int(0.99 * np.exp(log_n)), d).empty


@pytest.mark.parametrize(("d", "sides"), [(1, (16, 128)), (2, (6, 18)), (3, (4, 9))])
def test_two_atoms_share_at_a_temperature_that_falls_as_the_spacing_squared(d, sides):
    """Mean entropy log 2: published slopes in N are -2.04, -1.07, -.70; theory -2/d."""
    x = jnp.asarray(np.random.default_rng(1).uniform(-1.5, 1.5, (64, d)))
    found = []
    for m in sides:
        axis = 2 * (2 * (np.arange(m) + 0.5) / m - 1)
        y = np.stack([a.ravel() for a in np.meshgrid(*[axis] * d, indexing="ij")], axis=1)
        a = LSE(y / 2, -np.sum(y**2, axis=1) / 4, 1.0)
        found.append(float(jax.jit(lambda x, a=a: temperature.crossover(a, x))(x)))
    slope = np.log(found[1] / found[0]) / np.log((sides[1] / sides[0]) ** d)
    assert abs(slope - [-2.04, -1.07, -0.70][d - 1]) < 0.1
    assert abs(slope + 1 / d) > 0.2  # the twin: not the heuristic's exponent


def test_at_the_crossover_the_entropy_is_the_one_asked_for():
    a, x = layer(), points(16)
    both = jax.jit(lambda e: temperature.crossover(a, x, entropy=e))
    eps = both(1.0)
    z = np.asarray(x @ a.W.T) + np.asarray(a.b)
    p = np.exp((z - z.max(1, keepdims=True)) / float(eps))
    p /= p.sum(1, keepdims=True)
    assert_agree(jnp.asarray(-(p * np.log(p)).sum(1).mean()), jnp.asarray(1.0))
    assert bool(jnp.isnan(both(2.0)))  # more than log 7: never reached
    assert bool(jnp.isnan(both(np.log(7.0))))  # nor is log 7, whatever roundoff says far out


def test_a_binary_head_has_no_crossover_at_log_2_and_says_so():
    two, x = layer(atoms=2), points(16)
    with pytest.raises(ValueError, match=r"2 atoms .* log 2 = 0.693147, .* asked was 0.693147"):
        temperature.crossover(two, x)
    with pytest.raises(ValueError, match=r"2 atoms .* asked was 0.693147"):
        jax.jit(lambda x: temperature.crossover(two, x))(x)
    eps = float(jax.jit(lambda x: temperature.crossover(two, x, entropy=0.3))(x))
    logit = np.asarray(x @ (two.W[1] - two.W[0])) + float(two.b[1] - two.b[0])
    p = 1 / (1 + np.exp(-logit / eps))
    assert_agree(jnp.asarray(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()), jnp.asarray(0.3))
    tied = LSE(jnp.zeros((4, 3)), jnp.array([0.0, 0.0, 0.0, -1.0]), 1.0)
    with pytest.raises(ValueError, match=r"runs from 1\.09861 to 1\.38629.*Tied logits"):
        temperature.crossover(tied, x)


@pytest.fixture(scope="module")
def held_out():
    """Noisy values of a layer at eps = 0.2, on which any temperature can be tried."""
    a, x = layer(7), points(64, seed=8, scale=1.5)
    clean = jax.jit(jax.vmap(LSE(a.W, a.b, GRID[4])))(x)
    y = clean + 0.02 * np.random.default_rng(9).normal(size=64)
    at = lambda e: LSE(a.W, a.b, e)
    losses = jax.jit(lambda e: (jax.vmap(at(e))(x) - y) ** 2)

    @jax.jit
    def bounds(e):
        """Worst squared error within 0.1 of each sample, certified."""

        def worst(x, y):
            moved, miss = robustness.change(at(e), x, 0.1), at(e)(x) - y
            return jnp.maximum((miss + moved.upper) ** 2, (miss + moved.lower) ** 2)

        return jax.vmap(worst)(x, y)

    @jax.jit
    def attacked(e):
        def worst(x, y, key):
            gain = lambda a: (at(e)(a) - y) ** 2
            return robustness.attack(gain, x, 0.1, key=key, steps=12, starts=2).value

        return jax.vmap(worst)(x, y, jax.random.split(jax.random.key(0), 64))

    return losses, bounds, attacked


def test_validation_finds_the_temperature_of_the_data(held_out):
    found = temperature.by_validation(held_out[0], GRID)
    assert float(found.eps) == float(GRID[4])
    assert not found.at_edge
    assert found.plausible[0] <= float(found.eps) <= found.plausible[1]
    assert "validation" in str(found)
    short = temperature.by_validation(held_out[0], GRID[5:])
    assert short.at_edge
    assert "EDGE" in str(short)


def test_the_bound_bounds_and_validation_does_not(held_out):
    losses, bounds, attacked = held_out
    chosen = temperature.by_bound(bounds, GRID)
    reached = np.array([float(jnp.mean(attacked(e))) for e in GRID[::4]])
    assert (reached <= chosen.values[::4]).all()
    measured = temperature.by_validation(losses, GRID)
    assert (
        measured.values[::4] < reached
    ).all()  # the twin: held-out loss is no bound under attack
    assert chosen.values[4] < 25 * reached[1]
    assert "certified" in str(chosen)


def test_jointly_the_loss_falls_and_eps_with_it():
    """|x| from six atoms: the fit wants a kink, and nothing stops eps from going there."""
    x = jnp.linspace(-2, 2, 40)[:, None]
    start = LSE(np.linspace(-1, 1, 6)[:, None], np.zeros(6), 0.5)
    method = hj.solvers.Gradient(optax.lbfgs(), tol=1e-9)
    found = temperature.jointly(start, x, jnp.abs(x[:, 0]), method, max_steps=60)
    assert float(found.eps) < 0.1
    assert float(found.objective) < 0.01 * found.values[0]
    fitted = jax.jit(jax.vmap(found.layer))(x)
    assert_agree(0.5 * jnp.mean((fitted - jnp.abs(x[:, 0])) ** 2), found.objective)
    assert "jointly" in str(found)


def test_a_loss_of_the_weights_pi_alone_cannot_choose():
    """Euler: W, b and eps times a number leave pi unchanged, and multiply the value by it."""
    a, x = layer(), points(1)[0]

    @jax.jit
    def along(c):
        scaled = LSE(c * a.W, c * a.b, c * a.eps)
        return scaled(x), scaled.weights(x)

    value, slope = jax.jvp(along, (1.0,), (1.0,))
    assert_agree(slope[0], value[0])
    assert float(jnp.max(jnp.abs(slope[1]))) < 1e-14


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: temperature.window(1, 2), "two atoms"),
        (lambda: temperature.window(9, 2, t=0.0), "`t` must be > 0"),
        (lambda: temperature.window(9, -1), "`dimension` must be > 0"),
        (lambda: temperature.by_validation(lambda e: jnp.ones(3), [-0.1]), "eps. must be >= 0"),
        (lambda: temperature.by_validation(lambda e: jnp.ones(()), [0.1]), "one loss a sample"),
        (lambda: temperature.by_bound(lambda e: jnp.full(3, jnp.nan), [0.1]), "at eps = 0.1"),
        (
            lambda: temperature.jointly(layer(eps=0.0), points(4), jnp.ones(4), None),
            "found eps = 0",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
