r"""The costate of a flow by SciPy: the reference that shares nothing with diffrax.

    x' = f(x, theta(t)),   p' = -(df/dx)^T p,   g' = -(df/dtheta)^T p,   p(t1) = dJ/dx,  g(t1) = 0

DOP853 on NumPy float64, forward for the state with dense output, then back for the costate along it,
between knots where the control has corners. f and its transposed Jacobians are JAX's, of the inlined
primal. The costate is as good as `RTOL` and the dense output (order 7), on a flow that is not stiff.
"""

import itertools
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from hjcontrol.networks import Flow
from hjcontrol.verification.inlining import inlined

RTOL, ATOL = 1e-12, 1e-14


def costate_reference(
    flow: Flow, x: PyTree[Array], theta: PyTree[Array], cost: Any
) -> tuple[PyTree[Array], PyTree[Array]]:
    """`p(t0) = dJ/dx0` and `dJ/dtheta` for `J = cost(x(t1))`, `x` an ensemble `(n, ...)`.

    **Raises:** `RuntimeError` if SciPy gives up, with its words.
    """
    flat, unravel = ravel_pytree(x)
    weights, unravel_weights = ravel_pytree(theta)
    one = jax.vmap(inlined(flow.velocity), in_axes=(None, 0, None))

    @jax.jit
    def velocity(t: Any, y: Any) -> Any:
        return ravel_pytree(one(t, unravel(y), theta))[0]

    @jax.jit
    def pull(t: Any, y: Any, p: Any) -> Any:
        f = lambda a, c: ravel_pytree(one(t, unravel(a), unravel_weights(c)))[0]
        _, back = jax.vjp(f, y, weights)
        return jax.numpy.concatenate(back(p))

    ends = _corners(flow)
    y, paths = np.asarray(flat, float), []
    for a, b in itertools.pairwise(ends):
        path = _integrate(lambda t, y: np.asarray(velocity(t, y), float), a, b, y, dense=True)
        paths.append(path.sol)
        y = path.y[:, -1]
    p = jax.grad(lambda a: cost(unravel(a)))(jax.numpy.asarray(y, flat.dtype))
    z = np.concatenate([np.asarray(p, float), np.zeros(weights.size)])
    for a, b, path in reversed(list(zip(ends[:-1], ends[1:], paths, strict=True))):
        back = lambda t, z, path=path: -np.asarray(pull(t, path(t), z[: flat.size]), float)
        z = _integrate(back, b, a, z, dense=False).y[:, -1]
    return unravel(z[: flat.size]), unravel_weights(z[flat.size :])


def _corners(flow: Flow) -> list[float]:
    pieces = 1 if flow.control == "constant" else flow.knots - 1
    return [float(t) for t in np.linspace(float(flow.t0), float(flow.t1), pieces + 1)]


def _integrate(rate: Any, a: float, b: float, y: np.ndarray, dense: bool) -> Any:
    from scipy.integrate import solve_ivp

    done = solve_ivp(
        rate,
        (a, b),
        y,
        method="DOP853",
        rtol=RTOL,
        atol=ATOL * max(1.0, float(np.abs(y).max(initial=0.0))),
        max_step=abs(b - a)
        / 64,  # the dense output, of lower order than the steps, bounds the error
        dense_output=dense,
    )
    if not done.success:
        raise RuntimeError(
            f"adjoint_ladder: the reference by DOP853 stopped between t = {a:g} and {b:g}: "
            f"{done.message} The flow may be too stiff for an explicit method."
        )
    return done
