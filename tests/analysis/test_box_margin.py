"""The least lead over a box, by splitting: against dense grids, against lines, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.analysis import robustness as rb
from hjcontrol.analysis.robustness import splitting
from hjcontrol.networks import AffineWeights, Chain, Dense, Residual, Trained, from_model, readout
from tests.analysis.test_deep_robustness import drawn

X = jnp.array([0.4, -0.3])
AXIS = np.linspace(-1, 1, 401)
GRID = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2)


def residual():
    draw = np.random.default_rng(4)
    stages = [Dense(2, 4, jnp.abs), Residual(Dense(4, 4, jax.nn.leaky_relu), 0.5), readout(4, 3)]
    thetas = [
        AffineWeights(*(jnp.asarray(draw.normal(size=s) / 2) for s in ((n, m), (n,))))
        for n, m in ((4, 2), (4, 4), (3, 4))
    ]
    chain = Chain(stages, jnp.zeros(2))
    return Trained(chain, chain.stack(thetas), (0, 1, 2))


MODELS = {"relu": drawn([2, 6, 5, 3], "relu", 1), "residual": residual()}


def leads(model, points, label):
    z = np.asarray(jax.jit(jax.vmap(model))(jnp.asarray(points)))
    return z[:, [label]] - np.delete(z, label, axis=1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("radius", [0.1, 0.7])
def test_the_least_lead_is_that_of_a_dense_grid(name, radius):
    model = MODELS[name]
    found = rb.box_margin(model, X, radius)
    least = leads(model, np.asarray(X) + radius * GRID, found.label).min()
    steep = float(jnp.max(rb.output_bounds(model, X, radius, norm=float("inf")).lipschitz))
    assert found.lower <= least + 1e-6
    assert found.attained >= found.lower
    assert found.attained <= found.lower + 1e-5
    assert least - 2 * steep * radius * (AXIS[1] - AXIS[0]) <= found.attained <= least + 1e-6
    assert np.abs(found.point - np.asarray(X)).max() <= radius * (1 + 1e-9)
    assert leads(model, found.point[None], found.label).min() == pytest.approx(found.attained)
    # the twin: a box a fifth smaller has another least lead
    assert rb.box_margin(model, X, 0.8 * radius).lower > found.attained + 1e-4


def test_a_wrong_interval_of_a_unit_gives_a_wrong_lead(monkeypatch):
    model, lines = MODELS["relu"], splitting._by_lines
    found = rb.box_margin(model, X, 0.7)
    assert found.undecided > 2

    def decided(*args):
        low, parts = lines(*args)
        return low - 100, [(jnp.abs(lo), hi) for lo, hi in parts]  # every unit as if it were on

    monkeypatch.setattr(splitting, "_by_lines", decided)
    assert abs(rb.box_margin(model, X, 0.7).lower - found.lower) > 1e-3


def test_lines_prove_no_more_and_rivals_they_hold_are_not_asked():
    model, draw = drawn([6, 8, 8, 5], "relu", 3), np.random.default_rng(0)
    asked = []
    for x in jnp.asarray(draw.normal(size=(6, 6))):
        found = rb.box_margin(model, x, 0.2)
        inside = np.asarray(x) + 0.2 * draw.uniform(-1, 1, (5000, 6))
        assert leads(model, inside, found.label).min() >= found.lower - 1e-6
        head = [(np.asarray(t.W), np.asarray(t.b)) for _, t in model.layers]
        W, b = head[-1]
        apart = (W[found.label] - W, b[found.label] - b)
        by_lines = rb.output_bounds(
            from_model([*head[:-1], apart], activation="relu"), x, 0.2, norm=float("inf")
        )
        others = np.delete(np.asarray(by_lines.lower), found.label)
        assert found.lower >= others.min() - 1e-9
        assert found.holds or found.broken
        asked.append(found.programs)
    assert min(asked) < 4


def test_what_is_not_ahead_is_broken_at_a_point_and_said():
    model = MODELS["relu"]
    label = int(jnp.argmax(model(X)))
    far = rb.box_margin(model, X, 3.0)
    assert far.broken
    assert not far.holds
    assert int(jnp.argmax(model(jnp.asarray(far.point)))) != label
    assert "is not ahead" in str(far)
    near = rb.box_margin(model, X, 0.0)
    assert near.holds
    assert near.undecided == 0
    assert near.lower == pytest.approx(float(leads(model, X[None], label).min()), abs=1e-9)
    assert "holds in the whole box" in str(near)
    other = rb.box_margin(model, X, 0.1, (label + 1) % 3)  # a class that is not predicted
    assert other.broken


def test_what_has_no_exact_answer_is_refused():
    with pytest.raises(ValueError, match=r"stage 0's units are not max\(a z, c z\)"):
        rb.box_margin(drawn([2, 3, 2], "tanh"), X, 0.1)
    with pytest.raises(ValueError, match="two classes or more"):
        rb.box_margin(drawn([2, 3, 1], "relu"), X, 0.1)
    with pytest.raises(ValueError, match="radius"):
        rb.box_margin(MODELS["relu"], X, -0.1)
    with pytest.raises(ValueError, match="label"):
        rb.box_margin(MODELS["relu"], X, 0.1, 3)
