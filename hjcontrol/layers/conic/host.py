"""Clarabel on the host, one sample after the other, through a callback: every cone, any transform.

The polish follows in the same callback, in NumPy: there is nothing to compile but the derivative.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from hjcontrol._ground.third_party import needs
from hjcontrol._ground.threads import one_blas_thread
from hjcontrol.layers.conic.cones import Cones
from hjcontrol.layers.conic.graded import Dropped
from hjcontrol.layers.conic.polish import Polished, polished

SOLVED, INFEASIBLE, UNBOUNDED, UNKNOWN = range(4)
TOLS = 1e-10, 1e-14  # the second where the first did not show which constraints hold
POOR = 1e-11  # the measure of a polish that went astray


def clarabel(P: Any, q: Any, A: Any, b: Any, cones: Cones) -> tuple[Polished, Any, Any]:
    """The polished pair, how the solver ended, and the steps taken. An end that proves infeasibility
    leaves the proof in `z` (in `x`, of unboundedness)."""
    n, m = q.shape[0], b.shape[0]
    dtype = q.dtype
    shape = jax.ShapeDtypeStruct
    truth = Dropped(shape((n,), bool), shape((m,), bool), shape((n,), bool))
    whole = shape((), jnp.int32)
    shapes = (
        Polished(
            shape((n,), dtype),
            shape((m,), dtype),
            shape((m,), dtype),
            shape((m,), jnp.int32),
            truth,
            shape((), dtype),
        ),
        whole,
        whole,
    )
    ask = lambda *data: _batch(cones, *data)
    return jax.pure_callback(ask, shapes, P, q, A, b, vmap_method="broadcast_all")


def _batch(cones: Cones, P: Any, q: Any, A: Any, b: Any) -> tuple:
    dtype = np.asarray(q).dtype
    P, q, A, b = (np.asarray(v, float) for v in (P, q, A, b))
    batch = q.shape[:-1]
    n, m = q.shape[-1], b.shape[-1]
    P, A = P.reshape(-1, n, n), A.reshape(-1, m, n)
    q, b = q.reshape(-1, n), b.reshape(-1, m)
    with np.errstate(all="ignore"), one_blas_thread():  # small systems: more threads only wait
        found = [_one(P[k], q[k], A[k], b[k], cones) for k in range(q.shape[0])]

    def stacked(*leaves: Any) -> np.ndarray:
        out = np.stack([np.asarray(leaf) for leaf in leaves])
        out = out.astype(dtype if out.dtype.kind == "f" else out.dtype)
        return out.reshape((*batch, *out.shape[1:]))

    return jax.tree.map(stacked, *found)


def _one(P: Any, q: Any, A: Any, b: Any, cones: Cones) -> tuple:
    n, m = q.size, b.size
    none = Dropped(np.zeros(n, bool), np.zeros(m, bool), np.zeros(n, bool))
    state = np.zeros(m, np.int32)
    lost = Polished(np.full(n, np.nan), np.full(m, np.nan), np.full(m, np.nan), state, none, np.inf)
    if not all(np.all(np.isfinite(v)) for v in (P, q, A, b)):
        return lost, np.int32(UNKNOWN), np.int32(0)
    best, end, count = lost, UNKNOWN, 0
    for tol in TOLS:
        x, s, z, code, steps = _solve(P, q, A, b, cones, tol)
        count += steps
        if code == UNBOUNDED:  # is there a point at all? Where none is, none is better than another
            point = _solve(np.zeros_like(P), np.zeros_like(q), A, b, cones, tol)
            count += point[-1]
            if point[3] == INFEASIBLE:
                x, s, z, code, _ = point
        if code in (INFEASIBLE, UNBOUNDED):
            return Polished(x, s, z, state, none, np.inf), np.int32(code), np.int32(count)
        if all(np.all(np.isfinite(v)) for v in (x, s, z)):
            found = polished(P, q, A, b, cones.layout, (x, s, z))
            best, end = (found, code) if found.worst < best.worst else (best, end)
        if best.worst <= POOR:
            break
    return best, np.int32(end), np.int32(count)


def _solve(P: Any, q: Any, A: Any, b: Any, cones: Cones, tol: float) -> tuple:
    needs("ProgramLayer", "clarabel")
    import clarabel

    kinds = [clarabel.ZeroConeT(cones.zero)] if cones.zero else []
    kinds += [clarabel.NonnegativeConeT(cones.nonneg)] if cones.nonneg else []
    kinds += [clarabel.SecondOrderConeT(d) for d in cones.soc]
    kinds += [clarabel.PSDTriangleConeT(p) for p in cones.psd]
    kinds += [clarabel.ExponentialConeT() for _ in range(cones.exp)]
    kinds += [clarabel.PowerConeT(alpha) for alpha in cones.power]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.presolve_enable = False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = tol
    rows, upper = sp.csc_matrix(A), sp.csc_matrix(np.triu(P))
    try:
        found = clarabel.DefaultSolver(upper, q, rows, b, kinds, settings).solve()
    except BaseException as error:  # a panic of the foreign solver is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return np.full(q.size, np.nan), np.full(b.size, np.nan), np.full(b.size, np.nan), UNKNOWN, 0
    status = str(found.status)
    code = UNKNOWN
    if "PrimalInfeasible" in status:
        code = INFEASIBLE
    elif "DualInfeasible" in status:
        code = UNBOUNDED
    elif status in ("Solved", "AlmostSolved"):
        code = SOLVED
    return np.asarray(found.x), np.asarray(found.s), np.asarray(found.z), code, found.iterations
