"""A new task: which atoms it moves, what one step does, and what is forgotten on split digits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from hjcontrol.analysis import continual
from hjcontrol.layers import LSE, ClassHead
from tests.agreement import assert_agree
from tests.analysis.pieces import classifier, layer, points


def split_digits(samples=60):
    """Two tasks, digits 0-4 and 5-9: training inputs and labels, test inputs and labels."""
    X, y = load_digits(return_X_y=True)
    X = X / 16.0
    tasks = []
    for kept in (y < 5, y >= 5):
        a, b = jnp.asarray(X[kept]), jnp.asarray(y[kept])
        tasks.append((a[:samples], b[:samples], a[samples : 2 * samples], b[samples : 2 * samples]))
    return tasks


def digits_head(eps):
    """Two atoms a class, at the class's own first digits."""
    X, y = load_digits(return_X_y=True)
    atoms = np.concatenate([X[y == c][:2] for c in range(10)]) / 16.0
    return ClassHead(LSE(atoms, -np.sum(atoms**2, axis=1) / 2, eps), np.repeat(np.arange(10), 2))


def cross_entropy(model, task):
    scores = jax.vmap(model.scores)(task[0]) / model.head.eps
    return -jnp.mean(jax.nn.log_softmax(scores, axis=1)[jnp.arange(len(task[1])), task[1]])


@pytest.fixture(scope="module")
def tools():
    """Gradient descent on one task in the scale of z/eps, and test accuracy; one program each."""

    def only_weights(model):
        frozen = jax.tree.map(lambda _: False, model)
        return eqx.tree_at(lambda m: (m.head.W, m.head.b), frozen, (True, True))

    @eqx.filter_jit
    def fit(model, task):
        free, rest = eqx.partition(model, only_weights(model))

        def step(free, _):
            slope = jax.grad(lambda f: cross_entropy(eqx.combine(f, rest), task))(free)
            rate = 0.3 * model.head.eps**2
            return jax.tree.map(lambda a, g: a - rate * g, free, slope), None

        return eqx.combine(jax.lax.scan(step, free, None, length=60)[0], rest)

    @eqx.filter_jit
    def accuracy(model, task):
        return jnp.mean(jax.vmap(model.predict)(task[2]) == task[3])

    return fit, accuracy


def test_overlap_is_one_with_itself_and_none_without_common_atoms():
    model = classifier(eps=0.01)
    near, far = 50.0 * model.head.W[:1], 50.0 * model.head.W[3:4]
    jitted = jax.jit(lambda a, b: continual.overlap(model, a, b))
    assert_agree(jitted(near, near).shared, jnp.asarray(1.0))
    apart = jitted(near, far)
    assert float(apart.shared) < 1e-12 or int(jnp.argmax(apart.old)) == int(jnp.argmax(apart.new))
    assert "falls on the old task's atoms" in str(apart)


def test_an_atom_moves_as_its_weight_says():
    """The gradient of the mean output in the biases is the mean weight; in W, that of pi x."""
    a, new = layer(), points(16)

    @jax.jit
    def both(a):
        mean = lambda W, b: jnp.mean(jax.vmap(LSE(W, b, a.eps))(new))
        return jax.grad(mean, argnums=(0, 1))(a.W, a.b), continual.overlap(a, new, new).new

    (in_W, in_b), weight = both(a)
    assert_agree(in_b, weight)
    pi = jax.jit(jax.vmap(a.weights))(new)
    assert_agree(in_W, pi.T @ new / 16)


def test_the_pull_is_the_derivative_of_the_old_loss_along_the_step():
    old, new = split_digits(20)
    model = digits_head(0.3)

    def loss(W, task):
        return cross_entropy(eqx.tree_at(lambda m: m.head.W, model, W), task)

    @jax.jit
    def run(W):
        step = jax.grad(loss)(W, new)
        rates = 1e-4 * jnp.array([-1.0, 1.0])
        ends = jax.vmap(lambda r: loss(W - r * step, old))(rates)
        return continual.pull(loss, W, old, new), ends

    found, ends = run(model.head.W)
    assert abs(float(ends[1] - ends[0]) / 2 - float(found.change(1e-4))) < 1e-7 * abs(
        float(found.inner)
    )
    assert ("helps" if float(found.inner) > 0 else "harms") in str(found)
    assert -1 <= float(found.cosine) <= 1


def test_forgetting_on_split_digits(tools):
    """What is forgotten, at a low and at a high temperature; the overlap of weights goes with it."""
    fit, accuracy = tools
    tasks = split_digits()
    rows = {}
    for eps in (0.5, 4.0):
        model = digits_head(eps)
        shared = float(continual.overlap(model, tasks[0][0], tasks[1][0]).shared)
        found = continual.forgetting(model, tasks, fit, accuracy)
        rows[eps] = (shared, float(found.forgotten[0]), found.accuracy[1, 1])
    assert rows[0.5][0] < rows[4.0][0]
    assert rows[0.5][1] < rows[4.0][1] - 0.1
    assert min(r[2] for r in rows.values()) > 0.7  # the new task was learnt each time
    # The twin: the old task again in place of a new one is not forgotten.
    same = continual.forgetting(digits_head(4.0), [tasks[0], tasks[0]], fit, accuracy)
    assert abs(float(same.forgotten[0])) < 0.05
    assert "forgotten" in str(same)


def test_forgetting_is_counted_from_the_best():
    table = continual.Forgetting(np.array([[0.9, 0.1, 0.2], [0.95, 0.8, 0.3], [0.5, 0.7, 0.9]]))
    np.testing.assert_allclose(table.forgotten, [0.45, 0.1])
    assert table.final == pytest.approx(0.7)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="`new` must be"):
        continual.overlap(layer(), points(4), points(4)[0])
    with pytest.raises(ValueError, match="two tasks"):
        continual.forgetting(None, [1], lambda m, t: m, lambda m, t: 0.0)
