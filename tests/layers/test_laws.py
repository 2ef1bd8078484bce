r"""Laws that every registered layer obeys, at its usual temperature, at a low one and at eps = 0.

grad value = argmax     value + conjugate - p.z >= 0, = 0 at the argmax     a eps <= v_eps - v_0 <= b eps
(p - p').(z - z') >= m |p - p'|^2        vmap grad = grad vmap        = cvxpy
"""

import functools
import importlib
import inspect
import pkgutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol.layers
from hjcontrol.layers import AbstractConvexLayer, Softmax, certify, registry
from hjcontrol.layers.engines import argmax
from tests.agreement import assert_agree, disagreement

NAMES = list(registry.REGISTRY)
SAMPLES = 7
THRESHOLDS = (
    "soft-threshold",
    "group-soft-threshold",
)  # unbounded domain: no hard layer beyond lam


def logits(name, samples=SAMPLES, seed=3):
    shape = registry.REGISTRY[name].shape
    return np.random.default_rng(seed).standard_normal((samples, *shape))


def temperatures(name):
    usual = registry.REGISTRY[name].eps
    warm = [usual, 0.02] if usual > 0 else [0.3, 0.02]
    return warm if name in THRESHOLDS else [*warm, 0.0]


def pieces(build, Z, eps):
    """What the laws look at, one function a piece."""
    layer = build(eps)
    inner = lambda a, b: jnp.sum(a * b)
    v, p = jax.vmap(layer.value)(Z), jax.vmap(layer)(Z)
    conjugate = lambda: jax.vmap(layer.conjugate)(p)
    return {
        "value": lambda: v,
        "argmax": lambda: p,
        "gradient": lambda: jax.vmap(jax.grad(layer.value))(Z),
        "summed": lambda: jax.grad(lambda Z: jnp.sum(jax.vmap(layer.value)(Z)))(Z),
        "gap": lambda: jax.vmap(jax.vmap(layer.gap, (None, 0)), (0, None))(Z, p),
        "conjugate": conjugate,
        "direct": lambda: v + conjugate() - jax.vmap(inner)(p, Z),
        "hard": lambda: jax.vmap(build(0 * eps).value)(Z),
        "slope": lambda: jax.vmap(layer.directional)(Z, jnp.roll(Z, 1, axis=0)),
        "modulus": lambda: layer.modulus,
        "heat": lambda: jax.grad(lambda e: jnp.sum(jax.vmap(build(e).value)(Z)))(eps),
        "certificate": lambda: jax.vmap(lambda z, q: certify(layer.program(z), q))(Z, p),
    }


def observe(build, Z, eps):
    """Every piece, in one compilation."""
    return {name: piece() for name, piece in pieces(build, Z, eps).items()}


@functools.cache
def observer(name):
    return eqx.filter_jit(functools.partial(observe, registry.REGISTRY[name].build))


@functools.cache
def observed(name, eps):
    return jax.device_get(observer(name)(logits(name), jnp.asarray(eps)))


# One process a layer: all its laws look at the same compilation.
grouped = lambda names: [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in names]
BOUNDED = grouped(n for n in NAMES if n not in THRESHOLDS)
each = pytest.mark.parametrize("name", grouped(NAMES))


# ------------------------------------------------------------------------------------ the laws


def envelope(o, Z):
    assert_agree(o["gradient"], o["argmax"], 1e-13)
    assert_agree(o["summed"], o["gradient"], 1e-14)


def fenchel_young(o, Z):
    scale = 1.0 + np.abs(o["value"])  # the gap is a difference of numbers of this size
    gap = o["gap"] / scale[:, None]
    assert (gap >= -1e-15).all()
    assert_agree(np.diagonal(gap), np.zeros(len(Z)), 2e-15)
    assert_agree(np.diagonal(gap), o["direct"] / scale, 2e-15)


def biconjugate(o, Z):
    """`conjugate(p) = max over z of p.z - value(z)`, attained where `p` is the argmax."""
    p, flat = o["argmax"].reshape(len(Z), -1), Z.reshape(len(Z), -1)
    best = np.max(flat @ p.T - o["value"][:, None], axis=0)
    scale = 1.0 + np.abs(o["value"]).max()
    assert_agree(best / scale, o["conjugate"] / scale, 2e-15)


def monotone(o, Z):
    p, flat = o["argmax"].reshape(len(Z), -1), Z.reshape(len(Z), -1)
    dp, dz = p[:, None] - p[None], flat[:, None] - flat[None]
    assert (np.sum(dp * dz, -1) >= float(o["modulus"]) * np.sum(dp**2, -1) - 1e-13).all()


def one_sided(o, Z):
    dz = np.roll(Z, 1, axis=0)
    along = np.sum((o["argmax"] * dz).reshape(len(Z), -1), axis=1)
    assert_agree(o["slope"], along, 1e-13)  # no ties among these logits


def certified(o, Z):
    c = o["certificate"]
    worst = max(float(np.max(getattr(c, k))) for k in ("primal", "dual", "complementarity"))
    assert worst <= 1e-13
    assert float(np.max(c.stationarity)) <= 1e-12
    assert float(np.max(np.abs(c.gap) / (1.0 + np.abs(o["value"])))) <= 1e-14


LAWS = [envelope, fenchel_young, biconjugate, monotone, one_sided, certified]


@each
@pytest.mark.parametrize("law", LAWS, ids=lambda f: f.__name__)
def test_law(name, law):
    for eps in temperatures(name):
        law(observed(name, eps), logits(name))


@each
def test_temperature_moves_the_value_within_sharp_bounds(name):
    shape = registry.REGISTRY[name].shape
    low, high = registry.build(name).sandwich(shape)
    for eps in temperatures(name):
        o = observed(name, eps)
        finite = np.isfinite(o["hard"])
        moved = (o["value"] - o["hard"])[finite]
        assert (moved >= low * eps - 1e-13).all()
        assert (moved <= high * eps + 1e-13).all()


@pytest.mark.parametrize("name", BOUNDED)
def test_the_bounds_are_attained(name):
    entry, eps = registry.REGISTRY[name], 0.3
    low, high = entry.build(eps).sandwich(entry.shape)
    ladder = 50.0 * np.arange(1.0, 1.0 + np.prod(entry.shape)).reshape(entry.shape)
    trials = [0 * ladder, ladder, -ladder, ladder - 175.0, *[0 * ladder] * (SAMPLES - 4)]
    o = observer(name)(np.stack(trials), jnp.asarray(eps))  # the shape that is compiled already
    moved = np.asarray(o["value"] - o["hard"]) / eps
    assert_agree(moved.max(), high, 1e-12)
    assert_agree(moved.min(), low, 1e-11)


@each
def test_the_derivative_in_the_temperature_is_minus_the_regulariser(name):
    for eps in [e for e in temperatures(name) if e > 0]:
        o, Z = observed(name, eps), logits(name)
        regulariser = o["conjugate"] / eps if name not in THRESHOLDS else 0.5 * o["argmax"] ** 2
        want = -np.sum(regulariser)
        assert_agree(o["heat"], want, 1e-11)
        assert len(Z) == SAMPLES


@pytest.mark.parametrize("name", BOUNDED)
def test_the_argmax_tends_to_the_hard_one(name):
    tiny, hard = observed(name, 1e-12)["argmax"], observed(name, 0.0)["argmax"]
    assert_agree(tiny, hard, 1e-9)


@each
def test_equals_its_cvxpy_twin(name):
    for eps in temperatures(name)[:1] + temperatures(name)[2:]:
        o, z = observed(name, eps), logits(name)[0]
        problem = registry.build(name, eps).as_cvxpy(z)
        value = problem.solve(solver="CLARABEL")
        assert_agree(float(o["value"][0]), value, 3e-8)
        p = next(v for v in problem.variables() if v.name() == "p").value
        assert_agree(o["argmax"][0], p.reshape(z.shape), 1e-4)
        assert problem.is_dcp()


# ------------------------------------------------------------------------------ the tables themselves


def concrete_layers():
    for module in pkgutil.iter_modules(hjcontrol.layers.__path__):
        importlib.import_module(f"hjcontrol.layers.{module.name}")
    found, todo = set(), [AbstractConvexLayer]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.startswith("hjcontrol") and not inspect.isabstract(kind):
            found.add(kind)
    return {k for k in found if not k.__name__.startswith("Abstract")}


def test_every_layer_is_registered_documented_and_public():
    every = [*NAMES, *registry.FURTHER]
    registered = {type(registry.build(name)) for name in every}
    found = concrete_layers()
    assert len(found) > 10
    for kind in found:
        assert kind in registered, f"{kind.__name__} is not in layers/registry.py"
        assert getattr(hjcontrol.layers, kind.__name__) is kind
        assert kind.__doc__
        assert len(kind.__doc__.split()) > 4
        assert all(
            isinstance(getattr(kind, k), str) for k in ("domain", "regulariser", "curvature")
        )
    assert [row[0] for row in registry.table()] == every
    with pytest.raises(ValueError, match=r"layers are softmax.*found 'nothing'"):
        registry.build("nothing")


# ------------------------------------------------------------------------------ twins that must fail


class Planted:
    """A layer with one thing wrong."""

    def __init__(self, layer, **wrong):
        self.layer, self.wrong = layer, wrong

    def __getattr__(self, name):
        return self.wrong.get(name, getattr(self.layer, name))

    def __call__(self, z):
        return self.wrong.get("call", self.layer)(z)


def _flip(L):
    return Planted(L, call=lambda z: L(-z))


def _no_entropy(L):
    return Planted(L, conjugate=lambda p: 0.0 * L.conjugate(p))


def _other_temperature(L):
    return Planted(L, call=lambda z: L(1.001 * z))


def _boast(L):
    return Planted(L, modulus=3.0 * L.modulus + 5.0)


def _one_side(L):
    return Planted(L, directional=lambda z, dz: L.directional(z, -dz))


def _shift(L):
    return Planted(L, value=lambda z: L.value(z) + 1e-9 * jnp.sum(z))


FAULTS = {
    _flip: [envelope, fenchel_young, certified, one_sided],
    _other_temperature: [envelope, fenchel_young, certified],
    _no_entropy: [fenchel_young, biconjugate],
    _boast: [monotone],
    _one_side: [one_sided],
    _shift: [envelope],
}
NEEDS = {
    envelope: ["gradient", "argmax", "summed"],
    fenchel_young: ["value", "gap", "direct"],
    biconjugate: ["value", "argmax", "conjugate"],
    monotone: ["argmax", "modulus"],
    one_sided: ["argmax", "slope"],
    certified: ["certificate"],
}


@pytest.fixture(scope="module")
def faulty():
    """What each fault's laws look at, all in one compilation."""

    def look(Z, eps):
        found = {}
        for fault, laws in FAULTS.items():
            every = pieces(lambda eps, f=fault: f(Softmax(eps)), Z, eps)
            found[fault.__name__] = {k: every[k]() for law in laws for k in NEEDS[law]}
        return found

    return jax.device_get(jax.jit(look)(logits("softmax"), jnp.asarray(0.5)))


@pytest.mark.parametrize(
    ("fault", "law"),
    [(f, law) for f, laws in FAULTS.items() for law in laws],
    ids=lambda x: x.__name__.strip("_"),
)
@pytest.mark.xdist_group("softmax")
def test_a_planted_fault_breaks_the_law(fault, law, faulty):
    with pytest.raises(AssertionError):
        law(faulty[fault.__name__], logits("softmax"))


def test_a_twin_with_another_program_is_noticed():
    layer, z = registry.build("sparsemax"), logits("sparsemax", 1)[0]
    other = registry.build("softmax", 0.7)
    assert disagreement(np.asarray(argmax(other, z, "cvxpy")), np.asarray(layer(z))) > 1e-3
