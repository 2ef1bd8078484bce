"""Bounds of deep networks: they hold at drawn points and against attacks, and are not empty."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.analysis import robustness as rb
from hjcontrol.analysis.robustness.enclosing import Ball, bounded, enclose, layers_of
from hjcontrol.analysis.robustness.lines import group_lines, kind_of
from hjcontrol.networks import (
    AffineWeights,
    Chain,
    Dense,
    LSEUnits,
    Pointwise,
    Residual,
    SoftplusUnits,
    Trained,
    from_model,
    readout,
)
from hjcontrol.networks.foreign_models import ACTIVATIONS

SMOOTH = ["elu", "gelu", "sigmoid", "silu", "softplus", "tanh"]
UNITS = {name: Pointwise(sigma) for name, sigma in ACTIVATIONS.items()} | {
    "soft relu": SoftplusUnits(0.2),
    "hard relu": SoftplusUnits(0.0),
}


def drawn(widths, activation, seed=0):
    draw = np.random.default_rng(seed)
    pairs = zip(widths[1:], widths[:-1], strict=True)
    return from_model(
        [(draw.normal(size=(m, n)) / np.sqrt(n), 0.3 * draw.normal(size=m)) for m, n in pairs],
        activation=activation,
    )


def mixed(seed=0):
    """Plain, residual and soft maximum units one after another."""
    draw = np.random.default_rng(seed)
    units = LSEUnits(3, 0.3)
    stages = [Dense(3, 4, jnp.tanh), Residual(Dense(4, 4, jax.nn.relu), 0.5), Dense(4, 2, units)]
    sizes = [(4, 3), (4, 4), (6, 4), (3, 2)]
    chain = Chain([*stages, readout(2, 3)], jnp.zeros(3))
    thetas = [AffineWeights(*map(jnp.asarray, (draw.normal(size=s) / 2, draw.normal(size=s[0]) / 3)))
              for s in sizes]  # fmt: skip
    return Trained(chain, chain.stack(thetas), (0, 1, 2))


@pytest.mark.parametrize("name", UNITS)
def test_lines_lie_on_either_side_and_slopes_between(name):
    units, draw = UNITS[name], np.random.default_rng(1)
    ends = np.sort(np.concatenate([4 * draw.normal(size=(60, 2)), 0.1 * draw.normal(size=(20, 2))]))
    lo, hi = ends[:, 0], ends[:, 1]
    hi[0] = lo[0]  # a point
    kind = kind_of(units)
    ask = jax.jit(lambda lo, hi: (kind.lines(lo, hi), kind.slopes(lo, hi)))
    lines, (low, high) = jax.tree.map(np.asarray, ask(lo, hi))
    a = lo + (hi - lo) * np.linspace(0.0, 1.0, 101)[:, None]
    value = np.asarray(jax.jit(lambda a: units(a))(a))
    assert np.all(lines.al * a + lines.bl <= value)
    assert np.all(value <= lines.au * a + lines.bu)
    steps = np.diff(value, axis=0)[:, 1:] / np.diff(a, axis=0)[:, 1:]  # mean slopes on pieces
    assert np.all((low[1:] - 1e-9 <= steps) & (steps <= high[1:] + 1e-9))
    # not empty: on short intervals the lines meet the activation
    short = jax.tree.map(np.asarray, ask(lo, lo + 1e-3)[0])
    width = (short.au - short.al) * lo + short.bu - short.bl
    assert np.max(np.abs(width)) < 2e-3
    # the twin: the upper line lowered by a thousandth of the interval is crossed
    crossed = value > lines.au * a + lines.bu - 1e-3 * (hi - lo) - 1e-6
    assert crossed.any()


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_planes_of_soft_maxima_hold(eps):
    draw = np.random.default_rng(2)
    units = LSEUnits(3, eps)
    lo = draw.normal(size=12)
    hi = lo + draw.exponential(size=12)
    al, bl, au, bu = map(np.asarray, jax.jit(lambda lo, hi: group_lines(units, lo, hi))(lo, hi))
    a = lo + (hi - lo) * draw.uniform(size=(500, 12))
    value, parts = np.asarray(jax.jit(jax.vmap(lambda a: units(a)))(a)), a.reshape(500, 4, 3)
    assert np.all(np.sum(al * parts, axis=2) + bl <= value)
    assert np.all(value <= np.sum(au * parts, axis=2) + bu)


@pytest.mark.parametrize("norm", [2, np.inf])
@pytest.mark.parametrize("model", [drawn([3, 6, 5, 2], "relu"), mixed()], ids=["relu", "mixed"])
def test_outputs_and_slopes_over_a_ball_are_enclosed(model, norm):
    x, r = jnp.array([0.4, -0.3, 0.8]), 0.4
    found = jax.tree.map(np.asarray, rb.output_bounds(model, x, r, norm=norm))
    draw = np.random.default_rng(3)
    step = draw.normal(size=(2000, 3))
    step *= r / np.linalg.norm(step, ord=norm, axis=1, keepdims=True)
    step[::2] *= draw.uniform(size=(1000, 1))
    points = np.asarray(x) + step
    values = np.asarray(jax.jit(jax.vmap(model))(points))
    assert np.all((found.lower <= values) & (values <= found.upper))
    slopes = np.asarray(jax.jit(jax.vmap(jax.jacrev(model)))(points))
    dual = np.linalg.norm(slopes, ord=2 if norm == 2 else 1, axis=2)
    assert np.all(dual <= found.lipschitz)
    assert np.all(found.upper - found.lower < 6 * (values.max(0) - values.min(0)))
    point = rb.output_bounds(model, x, 0.0)  # a ball without radius: the value, up to rounding
    assert float(jnp.max(point.upper - point.lower)) < 1e-11


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_no_attack_succeeds_within_the_certified_radius(activation):
    model = drawn([4, 8, 8, 3], activation, seed=4)
    X = jnp.asarray(np.random.default_rng(5).normal(size=(24, 4)))
    certified = jax.jit(jax.vmap(lambda x: rb.certified_radius(model, x)))(X)
    keys = jax.random.split(jax.random.key(0), len(X))
    attacked = jax.jit(
        jax.vmap(lambda x, k: rb.attacked_radius(model, x, key=k, starts=4, steps=25))
    )(X, keys)
    ratio = np.asarray(certified.radius / attacked)[np.isfinite(attacked)]
    assert len(ratio) > 12
    assert ratio.max() <= 1.0
    assert np.median(ratio) > 0.3
    assert bool(jnp.all(certified.radius == jnp.maximum(certified.by_lines, certified.by_slope)))
    assert bool(jnp.all(certified.label == jnp.argmax(jax.vmap(model)(X), axis=1)))
    # the twin: a radius a few times the certified one is beaten somewhere
    assert np.any(3.0 * np.asarray(certified.radius) > np.asarray(attacked))


def test_one_hidden_layer_that_is_on_is_certified_to_its_plane():
    """ReLUs far from their kinks: the network is affine, the distance to its plane is known."""
    model = from_model([(np.eye(2), np.full(2, 50.0)), (np.eye(2), np.zeros(2))], activation="relu")
    x = jnp.array([2.0, 0.5])
    found = rb.certified_radius(model, x)
    assert float(found.radius) == pytest.approx(1.5 / np.sqrt(2), rel=2e-3)
    assert float(found.radius) < 1.5 / np.sqrt(2)
    # lengths of 2 in the first feature: the plane's normal is (2, -1)
    scaled = rb.certified_radius(model, x, scale=jnp.array([2.0, 1.0]))
    assert float(scaled.radius) == pytest.approx(1.5 / np.sqrt(5), rel=2e-3)
    assert "scaled inputs" in str(scaled)
    assert "own units" in str(found)
    wrong = rb.certified_radius(model, x, 1)
    assert float(wrong.radius) == 0.0
    assert "class 0 is ahead" in str(wrong)
    flat = hj.LSE(jnp.eye(2), jnp.zeros(2), 1.0)
    plain = rb.certified_radius(hj.ClassHead(flat, [0, 1]), x, scale=jnp.array([2.0, 1.0]))
    assert float(plain.radius) == pytest.approx(1.5 / np.sqrt(5))


def test_a_value_is_held_within_its_radius():
    model = drawn([3, 6, 1], "tanh", seed=7)
    x = jnp.array([0.2, -0.1, 0.5])
    r = rb.value_radius(model, x, 0.3)
    up = rb.attack(lambda a: model(a)[0], x, r, key=jax.random.key(0))
    down = rb.attack(lambda a: -model(a)[0], x, r, key=jax.random.key(1))
    moved = max(float(up.gain), float(down.gain))
    assert 0.1 < moved <= 0.3
    twice = rb.attack(lambda a: model(a)[0], x, 4 * r, key=jax.random.key(0))
    assert float(twice.gain) > 0.3  # the twin


def test_bounds_do_not_flinch_in_single_precision():
    """The same ball in 32 bits encloses what 64 bits find."""
    model = drawn([3, 5, 2], "tanh")
    half = jax.tree.map(lambda a: a.astype(jnp.float32), model.weights)
    small = Trained(model.chain, half, model.labels)
    x = jnp.array([0.4, -0.3, 0.8])
    wide, tight = (
        rb.output_bounds(small, x.astype(jnp.float32), 0.2),
        rb.output_bounds(model, x, 0.2),
    )
    assert wide.lower.dtype == jnp.float32
    assert bool(jnp.all((wide.lower <= tight.lower + 1e-6) & (tight.upper <= wide.upper + 1e-6)))
    wider = jax.tree.map(lambda a: a.astype(jnp.float64), half)

    @eqx.filter_jit
    def parts(model, x):
        layers = layers_of("test", model)
        here = enclose(layers, Ball(x, jnp.zeros((), x.dtype), 2))
        return here.parts, bounded(here, jnp.eye(2, dtype=x.dtype), len(layers))

    coarse, low = parts(small, x.astype(jnp.float32))
    exact, value = parts(Trained(model.chain, wider, None), x)
    for (lo, hi), (a, b) in zip(coarse, exact, strict=True):
        assert bool(jnp.all((lo <= a) & (b <= hi)))  # rounding is inside the interval
    assert bool(jnp.all(low <= value))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_kinks_are_said(activation):
    model = drawn([2, 4, 3], activation, seed=8)
    x = jnp.array([0.3, -0.2])
    found = rb.layer_curvature(model, x)
    if activation == "tanh":
        assert float(found.kink) == np.inf
        assert "every unit is smooth" in str(found)
        return
    W, b = model.layers[0][1]
    by_hand = np.min(np.abs(W @ x + b) / np.linalg.norm(W, axis=1))
    assert float(found.kink) == pytest.approx(by_hand)
    assert "the slope jumps there" in str(found)


def test_units_without_bounds_are_named():
    model = from_model([(np.eye(2), np.zeros(2)), (np.eye(2), np.zeros(2))], activation=jnp.sin)
    with pytest.raises(ValueError, match=r"stage 0's activation 'sin' has no bounds"):
        rb.certified_radius(model, jnp.ones(2))
    head = hj.layers.LogitHead(lambda x: x, 1.0)
    with pytest.raises(ValueError, match="LogitHead over a function"):
        rb.certified_radius(hj.ClassHead(head, [0, 1]), jnp.ones(2))
    with pytest.raises(ValueError, match="`norm` is 2 or inf; found 1"):
        rb.output_bounds(drawn([2, 2], "relu"), jnp.ones(2), 0.1, norm=1)
