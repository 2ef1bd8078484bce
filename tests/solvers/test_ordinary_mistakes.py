"""What a new user gets wrong: each call is refused at once, in this library's words, with its remedy.

Beside every wrong call stands the right one, which the remedy names and which works.
"""

import traceback
from typing import NamedTuple

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
LABELS = np.arange(20) % 2
KEY = jax.random.key(7)
STEPS = hj.Gradient(optax.sgd(1e-2))
MASKED = np.ma.masked_array(X, X > 1)


def net():
    return eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(1))


def stated(model=None, x=X, y=Y, terminal=hj.least_squares, **options):
    model = net() if model is None else model
    return hj.ControlProblem(model, x, y, terminal=terminal, **options)


def solved(solver=STEPS, **options):
    model = eqx.nn.Linear(3, 2, key=KEY)
    return hj.solve(stated(model), solver, **{"max_steps": 1, **options})


class Batched(eqx.Module):
    w: jax.Array = eqx.field(default_factory=lambda: jnp.ones((3, 2)))

    def __call__(self, x):
        n, d = x.shape
        return x.reshape(n, d) @ self.w


class Decides(eqx.Module):
    w: jax.Array = eqx.field(default_factory=lambda: jnp.ones((2, 3)))
    right: bool = False

    def __call__(self, x):
        if self.right:
            return jnp.where(x[0] > 0, 1.0, -1.0) * (self.w @ x)
        return self.w @ x if x[0] > 0 else -(self.w @ x)


class Transformed(NamedTuple):  # as haiku's
    init: object
    apply: object


def five(x=X, y=Y):
    for k in range(5):
        yield x[4 * k : 4 * k + 4], y[4 * k : 4 * k + 4]


def singles():
    yield from zip(X, Y, strict=True)


def triples():
    for x, y in five():
        yield x, y, np.ones(4)


def streamed(source, **options):
    return hj.ControlProblem(net(), source, terminal=hj.least_squares, **options)


def crossed(labels):
    return stated(y=labels, terminal=hj.softmax_cross_entropy)


def costed(terminal):
    return stated(terminal=terminal)


def traced(r, call):
    model = eqx.nn.Linear(3, 2, key=KEY)
    cost = lambda r: lambda x, y: r * jnp.sum((x - y) ** 2)
    return jax.vmap(lambda r: call(stated(model, terminal=cost(r))))(r)


SQUARE = lambda x, y: jnp.sum((x - y) ** 2)
MISTAKES = {  # the wrong call, its words, the right one
    "unknown argument": (
        lambda: solved(steps=3),
        r"solve: got an unexpected keyword argument 'steps'.* Is `max_steps` meant",
        lambda: solved(max_steps=3),
    ),
    "no terminal": (
        lambda: hj.ControlProblem(net(), X, Y),
        "ControlProblem: missing a required argument: 'terminal'",
        stated,
    ),
    "optimiser": (
        lambda: solved(optax.adam(1e-2)),
        r"`solver` must be an AbstractSolver .*`hj.Gradient\(optimiser\)`",
        solved,
    ),
    "several keys": (
        lambda: solved(hj.Gradient(optax.sgd(0.1), batch_size=4), key=jax.random.split(KEY)),
        "`key` must be a key, .* one alone; found",
        lambda: solved(hj.Gradient(optax.sgd(0.1), batch_size=4), key=jax.random.PRNGKey(0)),
    ),
    "callback without an argument": (
        lambda: solved(callback=lambda: None),
        r"`callback` is called as callback\(info\); found .*<lambda>\(\)",
        lambda: solved(callback=lambda info: None, every=1),
    ),
    "callback that answers an array": (
        lambda: solved(callback=lambda info: np.ones(2, bool), every=1),
        r"`callback` must answer true, to stop, or false; found bool\[2\]",
        lambda: solved(callback=lambda info: np.bool_(True), every=1),
    ),
    "progress of one argument": (
        lambda: solved(progress=lambda step: None),
        r"`progress` is called as progress\(step, objective, stationarity, seconds\)",
        lambda: solved(progress=lambda *figures: None),
    ),
    "validation without targets": (
        lambda: solved(validation=X),
        r"`validation` must be a pair \(inputs, targets\) like the problem's",
        lambda: solved(validation=(X, Y)),
    ),
    "validation that is not finite": (
        lambda: solved(validation=(X * np.nan, Y)),
        "`validation` must be finite, .* `inputs` of sample 0 are not finite",
        lambda: solved(validation=(X[:3].tolist(), Y[:3].tolist())),
    ),
    "misspelt precision": (  # NumPy reads what is no dtype as float64, where it is compared
        lambda: stated(compute_dtype="bf16"),
        "`compute_dtype` must be jnp.bfloat16, .* found 'bf16'",
        lambda: stated(compute_dtype="bfloat16"),
    ),
    "half inputs": (
        lambda: stated(x=jnp.asarray(X, jnp.bfloat16)),
        "`inputs` are bfloat16.* `compute_dtype=jnp.bfloat16`",
        lambda: stated(x=X.astype(np.float32)),
    ),
    "a cost of a batch": (
        lambda: costed(lambda x, y: jnp.sum((x - y) ** 2, axis=1).mean()),
        r"`terminal` .*fails as a cost Phi\(x_K, y\) of one sample: ValueError: axis 1",
        lambda: costed(SQUARE),
    ),
    "a cost that counts": (
        lambda: costed(lambda x, y: jnp.argmax(x)),
        "`terminal` must give a floating number; found int",
        lambda: costed(lambda x, y: 0.0),
    ),
    "labels in a column": (
        lambda: crossed(LABELS[:, None]),
        r"found int64, one sample \(1,\). Flatten the column by `targets\[:, 0\]`",
        lambda: crossed(LABELS[:, None][:, 0]),
    ),
    "labels as floats": (
        lambda: crossed(LABELS.astype(float)),
        r"found float64, one sample \(\). Convert them by `targets.astype\(int\)`",
        lambda: crossed(LABELS.astype(np.uint8)),
    ),
    "no targets": (
        lambda: stated(x=(X, Y), y=None),
        r"compares with a target, and there are no `targets`. Pass them after the inputs",
        stated,
    ),
    "a loader as targets": (
        lambda: stated(y=five),
        "`targets` must be arrays; found the function five",
        lambda: streamed(five),
    ),
    "a function as forcing": (
        lambda: stated(forcing=lambda t: t),
        "`forcing` must be arrays; found the function <lambda>",
        stated,
    ),
    "targets without their column": (
        lambda: stated(eqx.nn.Linear(3, 1, key=KEY), y=Y[:, 0]),
        r"final state is \(1,\), its target \(\). Make them a column: `targets\[:, None\]`",
        lambda: stated(eqx.nn.Linear(3, 1, key=KEY), y=Y[:, 0][:, None]),
    ),
    "targets in a column": (
        lambda: stated(eqx.nn.Linear(3, "scalar", key=KEY), y=Y[:, :1]),
        r"its target \(1,\). Flatten the column: `targets\[:, 0\]`",
        lambda: stated(eqx.nn.Linear(3, "scalar", key=KEY), y=Y[:, 0]),
    ),
    "one sample": (  # its features were taken for samples
        lambda: stated().take(3),
        "take: `index` must be a slice or a list of whole numbers, one at least; found 3",
        lambda: stated().take([3]),
    ),
    "no sample": (
        lambda: stated().take(X[:, 0] > 1e9),
        r"take: `index` must pick a sample at least; found bool\[20\]",
        lambda: stated().take(X[:, 0] > 0),
    ),
    "an empty slice": (
        lambda: stated().take(slice(20, None)),
        "take: `index` must pick a sample at least; found slice",
        lambda: stated().take(slice(-1, None)),
    ),
    "records": (
        lambda: stated(x=np.zeros(20, dtype=[("a", float), ("b", float), ("c", float)])),
        "`inputs` must be a tree of arrays of real numbers, without",
        stated,
    ),
    "masked": (lambda: stated(x=MASKED), "masked entries", lambda: stated(x=MASKED.filled(0.0))),
    "samples one at a time": (
        lambda: streamed(singles),
        "a stream gives batches, never one sample at a time",
        lambda: streamed(five),
    ),
    "triples": (
        lambda: streamed(triples),
        r"must be a pair \(inputs, targets\); found a tuple of float64\[4, 3\]",
        lambda: streamed(lambda: ((x, y) for x, y, _ in triples())),
    ),
    "words in a batch": (
        lambda: streamed(lambda: iter([(np.array(["a"] * 4), Y[:4])])),
        r"the inputs of a batch must be arrays of numbers .*found <U1\[4\]",
        lambda: streamed(lambda: iter([(X[:4].tolist(), Y[:4].tolist())])),
    ),
    "chunks of a loader": (
        lambda: streamed(five, chunk=2),
        "a loader makes its own batches, .* found `chunk` = 2",
        lambda: stated(chunk=2),
    ),
    "forcing beside a loader": (
        lambda: streamed(five, forcing=np.ones((20, 1, 3))),
        "batches bring inputs and targets alone; found `forcing`",
        lambda: streamed(five),
    ),
    "haiku without weights": (
        lambda: stated(Transformed(None, lambda p, x: x @ p)),
        r"haiku's Transformed, whose weights are apart. Pass \(net.apply, params\)",
        lambda: stated((lambda p, x: x @ p, jnp.ones((3, 2)))),
    ),
    "halves of a model": (
        lambda: stated(eqx.partition(net(), eqx.is_array)),
        r"the two halves of `eqx.partition`. Pass the model",
        lambda: stated(eqx.combine(*eqx.partition(net(), eqx.is_array))),
    ),
    "weights first": (
        lambda: stated((jnp.ones((3, 2)), lambda p, x: x @ p)),
        "a pair .* The function comes first",
        lambda: stated((lambda p, x: x @ p, jnp.ones((3, 2)))),
    ),
    "an optimiser in the model": (
        lambda: stated((lambda p, x: x @ p, jnp.ones((3, 2)), optax.sgd(0.1))),
        r"an optimiser beside \(apply, params\)",
        lambda: stated((lambda p, x: x @ p, jnp.ones((3, 2)))),
    ),
    "nothing beside a module": (
        lambda: stated((net(), {})),
        r"a pair \(MLP, dict\). An eqx.Module holds its weights: pass it alone",
        stated,
    ),
    "a model of batches": (
        lambda: stated(Batched()),
        r"does not accept its state .* a stage takes one sample: lambda x: model\(x\[None\]\)\[0\]",
        lambda: stated([(lambda x, m: m(x[None])[0], Batched())]),
    ),
    "a model that decides": (
        lambda: stated(Decides()),
        r"does not accept its state .* its code asks for the value .* Use jnp and jnp.where",
        lambda: stated(Decides(right=True)),
    ),
    "frozen by a mask": (
        lambda: stated(frozen=lambda leaf: leaf > 0),
        r"`frozen` as a function is called as frozen\(leaf\).*of float64\[4, 3\] it fails",
        lambda: stated(frozen=lambda leaf: leaf.ndim == 1),
    ),
    "a traced number in a cost": (
        lambda: traced(jnp.ones(2), lambda p: hj.solve(p, STEPS, max_steps=1).objective),
        r"solve: `terminal` of the problem.* holds a value that jit, vmap or grad hide",
        lambda: traced(jnp.ones(2), lambda p: hj.solvers.run(p, STEPS, p.init(KEY), 1).objective),
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_refused_at_once_and_its_remedy_works(kind):
    wrong, words, right = MISTAKES[kind]
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        wrong()
    last = traceback.extract_tb(caught.value.__traceback__)[-1].filename
    assert "hjcontrol" in last
    assert "site-packages" not in last
    assert right() is not None
