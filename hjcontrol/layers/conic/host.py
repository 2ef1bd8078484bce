"""Clarabel on the host, one sample after the other, through a callback: every cone, any transform."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from hjcontrol._ground.third_party import needs
from hjcontrol.layers.conic.cones import Cones

SOLVED, INFEASIBLE, UNBOUNDED, UNKNOWN = range(4)
TOL = 1e-10


def clarabel(P: Any, q: Any, A: Any, b: Any, cones: Cones) -> tuple[Any, Any, Any, Any, Any]:
    """`x, s, z`, how it ended, and the steps taken. An end that proves infeasibility leaves the proof in
    `z` (in `x`, of unboundedness)."""
    n, m = q.shape[0], b.shape[0]
    dtype = q.dtype
    shapes = (
        jax.ShapeDtypeStruct((n,), dtype),
        jax.ShapeDtypeStruct((m,), dtype),
        jax.ShapeDtypeStruct((m,), dtype),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.int32),
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
    count = q.shape[0]
    out = [np.full((count, k), np.nan, dtype) for k in (n, m, m)]
    code, steps = np.full(count, UNKNOWN, np.int32), np.zeros(count, np.int32)
    pattern = np.any(A != 0, axis=0), np.any(np.triu(P) != 0, axis=0)
    for k in range(count):
        if not all(np.all(np.isfinite(v[k])) for v in (P, q, A, b)):
            continue
        found = _one(P[k], q[k], A[k], b[k], cones, pattern)
        for array, value in zip(out, found[:3], strict=True):
            array[k] = value
        code[k], steps[k] = found[3:]
    return (*(v.reshape(*batch, v.shape[-1]) for v in out), code.reshape(batch), steps.reshape(batch))


def _one(P: Any, q: Any, A: Any, b: Any, cones: Cones, pattern: tuple) -> tuple:
    needs("ProgramLayer", "clarabel")
    import clarabel

    kinds = [clarabel.ZeroConeT(cones.zero)] if cones.zero else []
    kinds += [clarabel.NonnegativeConeT(cones.nonneg)] if cones.nonneg else []
    kinds += [clarabel.SecondOrderConeT(d) for d in cones.soc]
    kinds += [clarabel.PSDTriangleConeT(p) for p in cones.psd]
    kinds += [clarabel.ExponentialConeT() for _ in range(cones.exp)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.presolve_enable = False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = TOL
    rows = sp.csc_matrix(np.where(pattern[0], A, 0.0))
    upper = sp.csc_matrix(np.where(pattern[1], np.triu(P), 0.0))
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
