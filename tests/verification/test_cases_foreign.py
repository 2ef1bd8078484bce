"""The contract's cases with others' libraries: solvers, implicit layers, modules, kernels, devices.

A rule of the user's inside them is found at the user's line; their own right rules are not accused.
"""

import dataclasses
import os
import subprocess
import sys
import textwrap

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optax
import optimistix
import pytest
from jax.experimental import pallas
from jax.experimental.ode import odeint

import hjcontrol as hj
from tests.verification.cases import Case, bad, check, good, rule, table, x

_draw = np.random.default_rng(5).normal
A, b = _draw(size=(4, 4)) / 6, np.ones(4)
S = A @ A.T + np.eye(4)

# ------------------------------------------------------------------ implicit layers


def jaxopt_at(tol):
    def fn(A, b):
        import jaxopt

        layer = lambda z, A, b: jnp.tanh(A @ z) + b
        solver = jaxopt.FixedPointIteration(layer, tol=tol, maxiter=200)
        return jnp.sum(solver.run(jnp.zeros(4), A, b).params ** 2)

    return fn


def optimistix_at(tol):
    def fn(A, b):
        solver = optimistix.FixedPointIteration(rtol=tol, atol=tol)
        layer = lambda z, args: jnp.tanh(args[0] @ z) + args[1]
        found = optimistix.fixed_point(layer, solver, jnp.zeros(4), args=(A, b), throw=False)
        return jnp.sum(found.value**2)

    return fn


def cubic_root(factor):
    """x^3 + x = a, to 1e-3."""

    def solve(f, start):
        turn = lambda c: (c[0] - f(c[0]) / 6, c[1] + 1)
        going = lambda c: (jnp.max(jnp.abs(f(c[0]))) > 1e-3) & (c[1] < 200)
        return jax.lax.while_loop(going, turn, (start, 0))[0]

    def tangent(g, y):
        return factor * jnp.linalg.solve(jax.jacobian(g)(y), y)

    return lambda a: jnp.sum(
        jax.lax.custom_root(lambda x: x**3 + x - a, jnp.ones_like(a), solve, tangent) ** 2
    )


cg = lambda S, b: jnp.sum(jax.scipy.sparse.linalg.cg(lambda v: S @ v, b, tol=1e-4)[0] ** 2)
by_lineax = lambda S, b: jnp.sum(lineax.linear_solve(lineax.MatrixLinearOperator(S), b).value ** 2)
roots = np.array([2.0, 3.0])

IMPLICIT = [
    Case("31 jaxopt", jaxopt_at(1e-2), (A, b), "consistent", gap=1e-9),
    Case("31 optimistix", optimistix_at(1e-2), (A, b), "consistent", gap=1e-9),
    Case("31 optimistix closer", optimistix_at(1e-5), (A, b), "consistent", gap=1e-9),
    Case("32 loose", cubic_root(1.0), (roots,), "consistent", words="loops run on", gap=1e-9),
    Case("32 wrong", cubic_root(1.05), (roots,), "refuted", words="the gap stays"),
    Case("33", cg, (S, b), "consistent", gap=1e-9),
    Case("34", by_lineax, (S, b), "exact"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@table([dataclasses.replace(c, holds=c.verdict != "refuted") for c in IMPLICIT])
def test_implicit_layers(case):
    check(case)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("layer", [jaxopt_at, optimistix_at])
def test_a_tight_fixed_point_holds(layer):
    """Case 31 at 1e-12: nothing is left to run on."""
    found = hj.verify(layer(1e-12), A, b)
    assert found.verdict in ("consistent", "exact"), str(found)
    assert found


# ------------------------------------------------------------------ differential equations

ADJOINTS = {
    "recursive": diffrax.RecursiveCheckpointAdjoint(),
    "backsolve": diffrax.BacksolveAdjoint(),
}


def ode(act, adjoint):
    def fn(V, start):
        field = diffrax.ODETerm(lambda t, y, V: act(V @ y))
        found = diffrax.diffeqsolve(
            field, diffrax.Euler(), 0.0, 1.0, 0.1, start, args=V, adjoint=ADJOINTS[adjoint]
        )
        return jnp.sum(found.ys**2)

    return fn


V = 3 * _draw(size=(4, 4)) / 4
DYNAMICS = [
    Case("35 recursive", ode(good, "recursive"), (V, b), "exact"),
    Case("35 backsolve", ode(good, "backsolve"), (V, b), "consistent", gap=1e-2, holds=False),
    Case("36 recursive", ode(bad, "recursive"), (V, b), "refuted", line="act(V @ y)"),
    Case("36 backsolve", ode(bad, "backsolve"), (V, b), "refuted", line="act(V @ y)"),
    Case("37", ode(jnp.tanh, "backsolve"), (V, b), "consistent", gap=1e-2, holds=False),
]


def adaptive(act):
    """What most users write: adaptive steps, seen at times of which the last ends the solve."""
    times = jnp.linspace(0.0, 1.0, 4)
    how = {
        "saveat": diffrax.SaveAt(ts=times),
        "stepsize_controller": diffrax.PIDController(rtol=1e-3, atol=1e-6),
        "max_steps": 64,
    }

    def fn(V, start):
        field = diffrax.ODETerm(lambda t, y, V: act(V @ y))
        return jnp.sum(
            diffrax.diffeqsolve(
                field, diffrax.Tsit5(), times[0], times[-1], 0.1, start, args=V, **how
            ).ys
            ** 2
        )

    return fn


def jax_ode(act):
    """JAX's own solver: a library's rule by another scheme than that of its primal."""
    return lambda V, start: jnp.sum(
        odeint(lambda y, t, V: act(V @ y), start, jnp.linspace(0.0, 1.0, 2), V)[-1] ** 2
    )


DYNAMICS += [
    Case("adaptive", adaptive(good), (V, b), "exact"),
    Case("adaptive wrong", adaptive(bad), (V, b), "refuted", line="act(V @ y)"),
    Case("odeint", jax_ode(jnp.tanh), (V, b), "consistent", gap=1e-6, holds=True),
    Case("odeint wrong dynamics", jax_ode(bad), (V, b), "refuted", line="act(V @ y)"),
]


@table(DYNAMICS)
def test_differential_equations(case):
    check(case)


# ------------------------------------------------------------------ kernels, callbacks, devices


def kernel(x_ref, o_ref):
    o_ref[...] = jnp.tanh(x_ref[...])


def by_pallas(x):
    spec = pallas.BlockSpec((4, 8), lambda i: (i, 0))
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    call = pallas.pallas_call(
        kernel, out_shape=shape, grid=(4,), in_specs=[spec], out_specs=spec, interpret=True
    )
    return call(x)


def by_callback(x):
    return jax.pure_callback(np.tanh, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def opaque(f, factor):
    return rule(f, lambda r, p: (factor * p * (1 - jnp.tanh(r[0]) ** 2),))


squared = lambda f: lambda x: jnp.sum(f(x) ** 2)
labels = np.arange(16) % 8
entropy = lambda x: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x, labels))


def filtered(factor):
    @eqx.filter_custom_vjp
    def quick(x):
        return jnp.tanh(x)

    quick.def_fwd(lambda perturbed, x: (jnp.tanh(x), None))
    quick.def_bwd(lambda residual, p, perturbed, x: factor * p * (1 - jnp.tanh(x) ** 2))
    return eqx.filter_jit(squared(quick))


KERNELS = [
    Case("39 optax", entropy, (x,), "exact"),
    Case("44 right", squared(opaque(by_pallas, 1.0)), (x,), "exact"),
    Case("44 wrong", squared(opaque(by_pallas, 1.01)), (x,), "refuted"),
    Case("45 right", squared(opaque(by_callback, 1.0)), (x,), "consistent", holds=True),
    Case("45 wrong", squared(opaque(by_callback, 1.01)), (x,), "refuted"),
    Case("54 wrong", filtered(1.01), (x,), "refuted"),
    Case("54 right", filtered(1.0), (x,), "exact"),
]


@table(KERNELS)
def test_kernels_and_callbacks(case):
    check(case)


def sharded(act, devices):
    mesh = jax.make_mesh((devices,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")
    body = jax.shard_map(lambda x: 2 * act(x), mesh=mesh, in_specs=spec, out_specs=spec)
    return squared(body)


@pytest.mark.parametrize(("act", "verdict"), [(good, "exact"), (bad, "refuted")])
def test_shard_map_on_one_device(act, verdict):
    """Case 43, in this process."""
    assert hj.verify(sharded(act, 1), x).verdict == verdict


def test_shard_map_on_four_devices():
    """Case 43, in a process that has them."""
    code = """
    import jax
    jax.config.update("jax_enable_x64", True)
    import hjcontrol as hj
    from tests.verification.cases import bad, good, x
    from tests.verification.test_cases_foreign import sharded
    print(*[hj.verify(sharded(act, 4), x).verdict for act in (good, bad)])
    """
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert found.stdout.split() == ["exact", "refuted"], found.stderr[-2000:]


# ------------------------------------------------------------------ 53: modules of other libraries


def by_linen(act):
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(2)(act(linen.Dense(4)(x)))

    net = Net()
    params = net.init(jax.random.key(0), x)
    return lambda params, x: jnp.sum(net.apply(params, x) ** 2), (params, x)


def by_nnx(act):
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(8, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.last(act(self.first(x)))

    graph, state = nnx.split(Net(nnx.Rngs(0)))
    return lambda state, x: jnp.sum(nnx.merge(graph, state)(x) ** 2), (state, x)


def by_haiku(act):
    haiku = pytest.importorskip("haiku")
    net = haiku.without_apply_rng(
        haiku.transform(lambda x: haiku.Linear(2)(act(haiku.Linear(4)(x))))
    )
    params = net.init(jax.random.key(0), x)
    return lambda params, x: jnp.sum(net.apply(params, x) ** 2), (params, x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("library", [by_linen, by_nnx, by_haiku])
@pytest.mark.parametrize(("act", "verdict"), [(good, "exact"), (bad, "refuted")])
def test_modules_of_other_libraries(library, act, verdict):
    with jax.numpy_rank_promotion("allow"):  # theirs add biases of lower rank
        line = "act(" if verdict == "refuted" else ""
        check(Case("53", *library(act), verdict, line=line))
