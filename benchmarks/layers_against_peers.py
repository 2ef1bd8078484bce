"""Layers against cvxpylayers, jaxopt and qpax: the same batch, accuracy beside time.

1. the entropy layer (softmax), n = 10, eps = 0.1, batch 128: value, argmax, gap and KKT residual together
   against a cvxpylayers forward pass, and forward + backward; gradient error against the closed rule
2. projection on the simplex, n = 50, batch 128: against jaxopt's and qpax's

Needs `cvxpylayers`, `diffcp` and `qpax` beside the library; a peer that is missing is named and left out.
"""

import importlib.util
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from harness import header, row, timed

from hjcontrol.layers import Softmax, Sparsemax

# Calls of microseconds: with more cores or asynchronous dispatch, half of what is timed is the waking of
# other threads. All libraries run on one core, alike; both are read when JAX makes its first array.
jax.config.update("jax_cpu_enable_async_dispatch", False)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

BATCH = 128


def missing(package):
    """Whether a peer cannot be imported; says so."""
    absent = importlib.util.find_spec(package) is None
    if absent:
        print(f"  ({package} is not installed: left out)")
    return absent


def relative(a, b):
    """Worst norm-wise relative error of the rows of `a`."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.max(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)))


def entropy_layer(n=10, eps=0.1):
    rng = np.random.default_rng(0)
    z, g = rng.standard_normal((BATCH, n)), rng.standard_normal((BATCH, n))

    def everything(z, eps):
        """Value, argmax, gap and the largest KKT residual."""
        layer = Softmax(eps)
        p = layer(z)
        r = layer.program(z).residuals(p)
        kkt = (r.primal, r.dual, r.complementarity, r.stationarity)
        largest = jax.tree.reduce(jnp.maximum, jax.tree.map(jnp.max, kkt))
        return layer.value(z), p, r.objective - r.dual_objective, largest

    pull = lambda z, g, eps: jax.vjp(lambda z: Softmax(eps)(z), z)[1](g)[0]
    run = jax.jit(jax.vmap(everything, (0, None)))
    back = jax.jit(jax.vmap(pull, (0, 0, None)))
    arguments = jnp.asarray(z), jnp.asarray(eps)
    t, low, high = timed(lambda: run(*arguments), 2000)
    _, p, gap, kkt = run(*arguments)
    least = low
    gradient = back(arguments[0], jnp.asarray(g), arguments[1])
    certified = float(np.max(np.abs(gap)))
    row(
        what="softmax value+argmax+gap+KKT", n=n, eps=eps, seconds=t, least=low, most=high,
        gap=certified, kkt=float(jnp.max(kkt)),
    )  # fmt: skip
    cotangent = jnp.asarray(g)
    tb, low, high = timed(lambda: back(arguments[0], cotangent, arguments[1]), 2000)
    row(what="softmax forward+backward", n=n, eps=eps, seconds=tb, least=low, most=high)
    if missing("cvxpylayers"):
        return
    import cvxpy as cp
    from cvxpylayers.jax import CvxpyLayer

    variable, parameter = cp.Variable(n), cp.Parameter(n)
    cost = parameter @ variable + eps * cp.sum(cp.entr(variable))
    layer = CvxpyLayer(
        cp.Problem(cp.Maximize(cost), [cp.sum(variable) == 1]), [parameter], [variable]
    )
    forward = lambda z: layer(z)[0]
    both = jax.grad(lambda z: jnp.sum(jnp.asarray(g) * forward(z)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf, low, high = timed(lambda: forward(arguments[0]), 5)
        row(
            what="cvxpylayers forward", n=n, eps=eps, seconds=tf, least=low, most=high,
            error=float(np.max(np.abs(forward(arguments[0]) - p))), ratio=tf / t,
            ratio_of_least=low / least, asked=1000,
        )  # fmt: skip
        tg, low, high = timed(lambda: both(arguments[0]), 5)
        row(
            what="cvxpylayers forward+backward", n=n, eps=eps, seconds=tg, least=low, most=high,
            gradient_error=relative(both(arguments[0]), gradient), ratio=tg / t,
            ratio_of_least=low / least, asked=5000,
        )  # fmt: skip


def simplex_projection(n=50):
    z = jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, n)))
    ours = jax.jit(jax.vmap(Sparsemax(1.0)))
    p = ours(z)
    error = lambda q: float(jnp.max(jnp.abs(q - p)))
    worst = float(np.max(np.abs(jax.vmap(lambda z, p: Sparsemax(1.0).gap(z, p))(z, p))))
    runs = {"projection": (lambda: ours(z), 300)}
    if not missing("jaxopt"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from jaxopt.projection import projection_simplex
        theirs = jax.jit(jax.vmap(projection_simplex))
        runs["jaxopt"] = (lambda: theirs(z), 300)
    if not missing("qpax"):
        import qpax

        Q, A, b = jnp.eye(n), jnp.ones((1, n)), jnp.ones(1)
        one = lambda z: qpax.solve_qp(Q, -z, A, b, -jnp.eye(n), jnp.zeros(n), solver_tol=1e-9)[0]
        theirs_qp = jax.jit(jax.vmap(one))
        runs["qpax"] = (lambda: theirs_qp(z), 5)
    base = None
    for name, (run, repeats) in runs.items():
        t, low, high = timed(run, repeats)
        base = t if base is None else base
        extra = {"gap": worst} if name == "projection" else {"ratio": t / base}
        row(
            what=f"simplex, {name}",
            n=n,
            seconds=t,
            least=low,
            most=high,
            error=error(run()),
            **extra,
        )


if __name__ == "__main__":
    header("Layers against their peers")
    entropy_layer()
    simplex_projection()
