"""Models as flax and haiku users write them, tokens, bfloat16, data in files and lists: against loops and
formulas written by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
Y = np.sin(X[:, :2])
KEY = jax.random.key(7)
SGD = optax.sgd(0.1)
BATCHES = hj.Gradient(SGD, batch_size=10)


def stated(model, inputs=X, targets=Y, **options):
    return hj.ControlProblem(model, inputs, targets, terminal=hj.least_squares, **options)


def apart(a, b):
    """Largest difference of two trees' floating arrays."""
    a, b = (eqx.filter(tree, eqx.is_inexact_array) for tree in (a, b))
    gaps = jax.tree.map(lambda u, v: float(jnp.abs(u - v).max()), a, b)
    return max(jax.tree.leaves(gaps))


def drawn(steps=3):
    """Batches and keys as the documentation says: a permutation an epoch, one key a step."""
    key, noise, order = KEY, jax.random.fold_in(KEY, 1), jnp.arange(20)
    for k in range(steps):
        key, draw = jax.random.split(key)
        order = jax.random.permutation(draw, order) if k % 2 == 0 else order
        noise, now = jax.random.split(noise)
        rows = np.asarray(order[10 * (k % 2) : 10 * (k % 2) + 10])
        yield X[rows], Y[rows], now


def by_hand(params, state, call):
    """Steps of gradient descent on `call(params, state, batch, key) -> out, state`."""

    def cost(p, s, x, y, key):
        out, new = call(p, s, x, key)
        return jnp.mean(0.5 * jnp.sum((out - y) ** 2, 1)), new

    step = jax.jit(jax.grad(cost, has_aux=True))
    for x, y, key in drawn():
        slope, state = step(params, state, x, y, key)
        params = jax.tree.map(lambda a, g: a - 0.1 * g, params, slope)
    return params, state


def test_linen_dropout_and_statistics_are_those_of_a_loop_by_hand():
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Dense(6, param_dtype=float)(x)
            x = nn.BatchNorm(use_running_average=not train, param_dtype=float)(x)
            x = nn.Dropout(0.3, deterministic=not train)(jnp.tanh(x))
            return nn.Dense(2, param_dtype=float)(x)

    net = Net()
    variables = net.init(KEY, X, train=False)
    found = hj.solve(stated((net.apply, variables)), BATCHES, key=KEY, max_steps=3)

    def call(p, s, x, key):
        v = {"params": p, "batch_stats": s}
        out, new = net.apply(v, x, True, rngs={"dropout": key}, mutable=["batch_stats"])
        return out, new["batch_stats"]

    state = jax.tree.map(lambda a: a.astype(float), variables["batch_stats"])
    params, state = by_hand(variables["params"], state, call)
    apply, new = found.model
    assert apply == net.apply
    assert apart(new["params"], params) <= 1e-14
    assert apart(new["batch_stats"], state) <= 1e-6  # the layer keeps them in float32
    wide = jax.tree.map(lambda a: a.astype(float), new)  # the stage runs in the inputs' precision
    right = net.apply(wide, X, False)
    assert float(jnp.abs(found.predict(X) - right).max()) <= 1e-12
    assert float(jnp.abs(right - net.apply(variables, X, False)).max()) > 1e-3  # the twin
    with pytest.raises(ValueError, match="Dropout_0, BatchNorm_0 is trained by minibatches only"):
        hj.solve(stated((net.apply, variables)), "newton")

    class Always(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.Dropout(0.3, deterministic=False)(x))

    always = Always()
    variables = always.init({"params": KEY, "dropout": KEY}, X)
    with pytest.raises(ValueError, match=r"Dropout_0 is in training mode.*no argument"):
        stated((always.apply, variables))


def test_haiku_dropout_is_that_of_a_loop_by_hand():
    hk = pytest.importorskip("haiku")

    def network(x, training):
        x = jnp.tanh(hk.Linear(6)(x))
        x = hk.dropout(hk.next_rng_key(), 0.3, x) if training else x
        return hk.Linear(2)(x)

    net = hk.transform(network)
    params = net.init(KEY, X, True)

    def apply(params, rng, x):
        return net.apply(params, rng, x, rng is not None)

    found = hj.solve(stated((apply, params)), BATCHES, key=KEY, max_steps=3)
    right, _ = by_hand(params, None, lambda p, s, x, key: (net.apply(p, key, x, True), None))
    assert apart(found.model[1], right) <= 1e-14
    assert float(jnp.abs(found.predict(X) - net.apply(right, None, X, False)).max()) <= 1e-12
    with pytest.raises(ValueError, match="its function is trained by minibatches only"):
        hj.solve(stated((apply, params)), "newton")
    always = hk.transform(lambda x: hk.dropout(hk.next_rng_key(), 0.3, hk.Linear(2)(x)))
    with pytest.raises(ValueError, match="`rng=None`, which means inference"):
        stated((always.apply, always.init(KEY, X)))


def test_an_nnx_module_in_training_mode_is_trained_by_its_own_streams():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.a = nnx.Linear(3, 6, rngs=rngs, param_dtype=float)
            self.d = nnx.Dropout(0.3, rngs=rngs)
            self.b = nnx.Linear(6, 2, rngs=rngs, param_dtype=float)

        def __call__(self, x):
            return self.b(self.d(jnp.tanh(self.a(x))))

    net = Net()
    found = hj.solve(stated(net), BATCHES, key=KEY, max_steps=3)
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    leaves, form = jax.tree.flatten(rest)

    def call(p, s, x, key):
        module = nnx.merge(graph, p, jax.tree.unflatten(form, s))
        out = module(x)
        return out, jax.tree.leaves(nnx.split(module, nnx.Param, ...)[2])

    right, _ = by_hand(params, leaves, call)
    assert isinstance(found.model, Net)
    assert apart(nnx.split(found.model, nnx.Param, ...)[1], right) <= 1e-14
    assert not found.model.d.deterministic


def test_a_network_that_takes_only_batches_is_called_with_a_batch_of_one():
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(2, (3, 3), param_dtype=float)(x))
            return nn.Dense(2, param_dtype=float)(x.reshape((x.shape[0], -1)))

    images, net = RNG.normal(size=(4, 5, 5, 1)), Net()
    variables = net.init(KEY, images)
    problem = stated((net.apply, variables), images, Y[:4])
    right = 0.5 * jnp.sum((net.apply(variables, images) - Y[:4]) ** 2, 1).mean()
    assert abs(problem.objective(problem.init(KEY)) - right) <= 1e-12


class Words(eqx.Module):
    table: eqx.nn.Embedding
    out: eqx.nn.Linear

    def __call__(self, x):
        return self.out(jax.vmap(self.table)(x["tokens"]).mean(0)) + x["shift"]


def words():
    keys = jax.random.split(KEY)
    return Words(eqx.nn.Embedding(7, 4, key=keys[0]), eqx.nn.Linear(4, 2, key=keys[1]))


def test_whole_numbers_go_into_a_model_as_they_are():
    x = {"tokens": RNG.integers(0, 7, size=(20, 5)), "shift": X[:, :2]}
    problem = stated(words(), x)
    backpropagate = eqx.filter_jit(hj.control.backpropagate)
    value, _, costates, slope = backpropagate(problem, problem.init(KEY))

    def cost(m):
        out = jax.vmap(lambda t, s: m({"tokens": t, "shift": s}))(x["tokens"], x["shift"])
        return jnp.mean(0.5 * jnp.sum((out - Y) ** 2, 1))

    right, by_model = eqx.filter_value_and_grad(cost)(words())
    assert abs(value - right) <= 1e-14
    assert apart(slope[0].table.weight[0], by_model.table.weight) <= 1e-14
    assert float(jnp.abs(costates[0]["tokens"]).max()) == 0.0
    assert float(jnp.abs(costates[0]["shift"]).max()) > 1e-3  # the twin
    with pytest.raises(ValueError, match="must be floating"):
        stated([hj.readout(5, 2)], x["tokens"])


def small(dtype=None):
    model = eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(1))
    cast = lambda a: a.astype(dtype or a.dtype) if eqx.is_array(a) else a
    return jax.tree.map(cast, model)


def test_stages_compute_in_bfloat16_and_weights_stay_float32():
    x, y = X.astype(np.float32), Y.astype(np.float32)
    problem = stated(small("f4"), x, y, running=hj.Ridge(0.1), compute_dtype=jnp.bfloat16)
    weights = problem.init(KEY)
    half = lambda a: a.astype(jnp.bfloat16)

    def layer(linear, a):  # as its author would write it
        return (half(linear.weight) @ half(a) + half(linear.bias)).astype(jnp.float32)

    def cost(m):
        ridge = sum(jnp.sum(a**2) for a in jax.tree.leaves(eqx.filter(m, eqx.is_array)))
        first = lambda a: jnp.tanh(half(layer(m.layers[0], a))).astype(jnp.float32)
        out = jax.vmap(lambda a: layer(m.layers[1], first(a)))(x)
        return jnp.mean(0.5 * jnp.sum((out - y) ** 2, 1)) + 0.05 * ridge

    wide = stated(small("f4"), x, y, running=hj.Ridge(0.1)).objective(weights)
    value = problem.objective(weights)
    assert abs(value - eqx.filter_jit(cost)(small("f4"))) <= 1e-3 * value
    assert 0 < abs(value - wide) <= 0.02 * wide
    found = hj.solve(problem, hj.Gradient(optax.adam(3e-2)), max_steps=2000)
    assert bool(found.result == hj.RESULTS.successful)
    assert {a.dtype for a in jax.tree.leaves(found.weights)} == {jnp.dtype("float32")}
    assert found.stats["stationarity"] <= 2 * 2.0**-7  # twice the rounding of bfloat16
    assert type(found.model) is eqx.nn.MLP
    for wrong in (jnp.float16, "half"):
        with pytest.raises(ValueError, match="`compute_dtype` must be"):
            stated(small("f4"), x, y, compute_dtype=wrong)
    with pytest.raises(ValueError, match="beside a Chain"):
        stated(problem.chain, x, y, compute_dtype=jnp.bfloat16)


def test_full_batches_read_a_memory_map_in_chunks(tmp_path):
    np.asarray(X).tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", X.dtype, "r", shape=X.shape)
    file, held = (stated(small(), x, running=hj.Ridge(0.1), chunk=6) for x in (mapped, X))
    w = held.init(KEY)
    v = jax.tree.map(jnp.ones_like, w)
    both = lambda p: jax.jit(
        lambda w: (hj.control.value_and_gradient(p, w), hj.control.curvature(p, w)(v))
    )
    one, other = (both(p)(w) for p in (file, held))
    assert apart(one, other) <= 1e-14
    found = hj.solve(file, hj.Gradient(SGD), max_steps=1)
    right = jax.tree.map(lambda a, g: a - 0.1 * g, w, other[0][1])
    assert apart(found.weights, right) <= 1e-14
    assert apart(found.weights, w) > 1e-3  # the twin
    assert "20 samples" in str(found)
    for ask in (lambda: hj.verify(file, w), lambda: hj.verify(found)):
        with pytest.raises(ValueError, match=r"verify: .*memory map.*\.on\(inputs, targets\)"):
            ask()
    with pytest.raises(ValueError, match="read in chunks"):
        stated(small(), mapped).objective(w)


def test_a_cost_that_reads_targets_reads_those_of_each_batch():
    read = lambda x, theta, k, y: 0.1 * jnp.sum(x) * jnp.sum(y)
    halves = lambda: iter([(X[:10], Y[:10]), (X[10:], Y[10:])])
    found = hj.solve(stated(small(), halves, None, running=read), hj.Gradient(SGD), max_steps=2)
    parts = [stated(small(), X[s], Y[s], running=read) for s in (slice(10), slice(10, 20))]
    w = parts[0].init(KEY)
    for part in parts:
        slope = jax.jit(jax.grad(lambda w, p=part: p.objective(w)))(w)
        w = jax.tree.map(lambda a, g: a - 0.1 * g, w, slope)
    assert apart(found.weights, w) <= 1e-14


def test_lists_of_numbers_are_arrays():
    listed, arrays = stated(small(), X.tolist(), Y.tolist()), stated(small())
    assert np.array_equal(listed.inputs, arrays.inputs)
    assert np.array_equal(listed.targets, arrays.targets)
    with pytest.raises(ValueError, match="rows of one length"):
        stated(small(), [[1.0, 2.0, 3.0], [1.0]], Y[:2])
    with pytest.raises(ValueError, match="stack samples by"):
        stated(small(), list(X), list(Y))


GRIDS = {
    "number": ({"ridge": 0.1}, r"`ridge` has 0.1. Write \[0.1\]"),
    "array": ({"ridge": np.array(0.1)}, "list of values"),
    "word": ({"ridge": "abc"}, "list of values"),
    "name": ({"strength": [0.1]}, "names the arguments of `make_problem`.*strength"),
    "points": ([{"strength": 0.1}], "names the arguments of `make_problem`.*strength"),
}


@pytest.mark.parametrize("kind", GRIDS)
def test_a_grid_of_another_form_is_refused(kind):
    grid, words = GRIDS[kind]
    make = lambda ridge: stated(small(), running=hj.Ridge(ridge))
    with pytest.raises(ValueError, match=words):
        hj.sweep(make, grid, "newton")


def test_three_things_are_no_problem_with_weights():
    with pytest.raises(ValueError, match="must give a ControlProblem"):
        hj.sweep(lambda ridge: (1, 2, 3), {"ridge": [0.1]}, "newton")


def test_models_are_saved_and_read_by_orbax(tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    params = {"W": jnp.ones((2, 3)), "b": jnp.zeros(2)}
    given = {"pair": (lambda p, x: p["W"] @ x + p["b"], params), "module": small()}
    for kind, model in given.items():
        found = hj.solve(stated(model), hj.Gradient(SGD), max_steps=2)
        arrays, rest = eqx.partition(found.model, eqx.is_array)
        with orbax.StandardCheckpointer() as keeper:
            keeper.save(tmp_path / kind, arrays)
            keeper.wait_until_finished()
            again = keeper.restore(tmp_path / kind, eqx.filter(model, eqx.is_array))
        again = eqx.combine(again, rest)
        assert apart(again, found.model) == 0.0
        assert apart(again, model) > 1e-3  # the twin
        more = hj.solve(stated(again), hj.Gradient(SGD), max_steps=0)  # it is trained on
        assert float(more.objective) == float(found.objective)
