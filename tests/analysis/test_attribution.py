"""Attribution: checked by really removing atoms, and layer by layer against integrated gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol import networks as nets
from hjcontrol.analysis import attribution as at
from hjcontrol.layers import LSE
from tests.agreement import assert_agree
from tests.analysis.pieces import ATOMS, D, classifier, layer, points
from tests.oracles.integrated_gradients import integrated_gradients

X = points(16, scale=2.0)


@pytest.fixture(scope="module")
def attributed():
    return jax.jit(jax.vmap(at.attribute, in_axes=(None, 0)))


@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.3, 5.0])
def test_removal_is_what_removing_does(attributed, eps):
    """One atom at a time really taken out: rows and biases gone, and the layer evaluated."""
    a = layer(eps=eps)
    found = attributed(a, X)

    @jax.jit
    def emptied(W, b, e):
        return jax.vmap(LSE(W, b, e))(X)

    for j in range(ATOMS):
        less = at.pruned(a, [j])
        assert less.b.shape == (ATOMS - 1,)
        assert_agree(found.value + found.removal[:, j], emptied(less.W, less.b, less.eps), 1e-13)
    if eps == 0.3:  # the twin: the first order is not the removal
        assert float(jnp.max(jnp.abs(found.removal + found.mass))) > 1e-2
        assert bool(jnp.all(found.removal <= -found.mass + 1e-15))


def test_removal_of_a_set_and_of_a_class(attributed):
    model = classifier()
    found = attributed(model, X)
    exact = jax.jit(
        jax.vmap(lambda x: (at.without(model.head, x, model.members[1]), model.scores(x)))
    )
    without, scores = exact(X)
    less = jax.jit(jax.vmap(at.pruned(model.head, [3, 4])))(X)
    assert_agree(without, less, 1e-13)
    assert_agree(found.value + found.class_removal[:, 1], less, 1e-13)
    assert_agree(jnp.sum(found.shares, axis=1), jnp.ones(16))
    assert_agree(found.shares, jax.nn.softmax(scores / 0.3, axis=1))
    assert_agree(found.shares[:, 1], found.weights[:, 3] + found.weights[:, 4])
    text = str(jax.tree.map(lambda a: a[0], found))
    assert "class" in text
    assert len(text.splitlines()) <= 12


def test_weights_and_masses_are_derivatives():
    a, x = layer(), X[0]

    @jax.jit
    def slopes(m):
        f = lambda b, m: LSE(a.W, b + a.eps * jnp.log(m), a.eps)(x)
        return jax.grad(f, argnums=(0, 1))(a.b, m), at.attribute(a, x)

    (in_bias, in_mass), found = slopes(jnp.ones(ATOMS))
    assert_agree(in_bias, found.weights)
    assert_agree(in_mass, found.mass)


def test_the_published_nadaraya_watson_values():
    """Sixteen points of two classes, seed 42: E_pi[g] at (1, 1), and the factor e^{-g/eps} in it."""
    draw = np.random.RandomState(42)  # the published draw
    one, two = (0.4 * draw.randn(8, 2) + c for c in (-1.0, 1.0))
    y, g = np.r_[one, two], np.repeat([0.0, 1.0], 8)
    W, b = y / 2, -g - np.sum(y**2, axis=1) / 4

    @jax.jit
    @jax.vmap
    def mean(eps):
        return g @ at.attribute(LSE(W, b, eps), jnp.ones(2)).weights

    np.testing.assert_allclose(mean(jnp.array([0.05, 0.25, 3.0])), [0.988, 0.869, 0.579], atol=1e-3)


@pytest.fixture(scope="module")
def network():
    """Three inputs, four residual tanh stages of width 5, a soft maximum of the last state."""
    stages = [
        nets.lift(D, 5),
        *[nets.Residual(nets.Dense(5, 5), 0.4)] * 4,
        nets.readout(5, ATOMS),
    ]
    chain = nets.Chain(stages, jnp.zeros(D))
    weights = jax.tree.map(lambda a: 1.5 * a, chain.init(jax.random.key(3)))
    return chain, weights, lambda z: 0.3 * jax.nn.logsumexp(z / 0.3)


def test_costates_are_complete_at_every_depth(network):
    chain, weights, output = network
    baseline = jnp.array([0.1, -0.2, 0.3])

    @jax.jit
    def run(x):
        fine = at.costates(chain, weights, x, baseline, output, nodes=32)
        coarse = at.costates(chain, weights, x, baseline, output, nodes=3)
        return fine, coarse

    fine, coarse = run(X[0])
    assert fine.totals.shape == (7,)
    assert float(fine.defect) < 1e-7
    # Few nodes leave a defect, and it is the same number at every depth: the pairing is conserved.
    assert float(coarse.defect) > 1e-6
    assert_agree(coarse.totals, jnp.full(7, coarse.totals[0]))
    assert "completeness" in str(fine)


def test_at_the_inputs_costates_are_integrated_gradients(network):
    """The same nodes give the numbers of the loop that captum runs; completeness is then the same."""
    chain, weights, output = network
    f = lambda x: output(chain(weights, x))
    gradient, value = jax.jit(jax.grad(f)), jax.jit(f)
    zero = jnp.zeros(D)
    ours = jax.jit(lambda x: at.costates(chain, weights, x, zero, output, nodes=50))(X[1])
    theirs = integrated_gradients(gradient, X[1], zero)
    assert_agree(ours.inputs, jnp.asarray(theirs))
    difference = float(value(X[1]) - value(zero))
    assert abs(theirs.sum() - difference) < 1e-8
    assert float(ours.defect) < 1e-8
    # The twin: gradient times input is not complete.
    assert abs(float(gradient(X[1]) @ X[1]) - difference) > 1e-2


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(network):
    chain, weights, output = network
    a = layer()
    with pytest.raises(ValueError, match="every atom is removed"):
        at.without(a, X[0], jnp.ones(ATOMS, bool))
    with pytest.raises(ValueError, match="boolean an atom"):
        at.without(a, X[0], jnp.ones(3, bool))
    with pytest.raises(ValueError, match="not all of them"):
        at.pruned(a, range(ATOMS))
    with pytest.raises(ValueError, match=r"found \[9\]"):
        at.pruned(a, [9])
    with pytest.raises(ValueError, match=r"nodes. must be >= 1"):
        at.costates(chain, weights, X[0], X[0], output, nodes=0)
    with pytest.raises(ValueError, match="shaped as x"):
        at.costates(chain, weights, X[0], jnp.zeros(2), output)
