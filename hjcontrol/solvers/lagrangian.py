r"""Derivatives of the multiple-shooting program, block by block.

    L = s f + sum_k,i p_{k+1}^i . (F_k(x_k^i, theta_k) - x_{k+1}^i)
    dg/d(x, theta):     one block (F_x, F_theta) a sample and stage, and -1 for x_{k+1}
    d2L/d(x, theta)^2:  one block a sample and stage, the theta-theta part summed over samples

CasADi would find the whole Hessian by colouring: as many directions as a stage has weights. One
sample's blocks are exact and small; the rest is bookkeeping of positions, done once.
"""

import casadi as ca
import numpy as np

from hjcontrol.solvers.transcription import Transcription


def derivatives(t: Transcription) -> dict[str, ca.Function]:
    """`grad_f`, `jac_g`, `hess_lag` as `casadi.nlpsol` takes them in its options."""
    x, p = t.nlp["x"], ca.MX.sym("p", 0)
    sigma, lam = ca.MX.sym("lam_f"), ca.MX.sym("lam_g", t.nlp["g"].numel())
    jacobian, hessian = _jacobian(t, x), _hessian(t, x, sigma, lam)
    f, g = t.nlp["f"], t.nlp["g"]
    slope = ca.gradient(f, x)
    return {
        "grad_f": ca.Function("nlp_grad_f", [x, p], [f, slope], ["x", "p"], ["f", "grad_f_x"]),
        "jac_g": ca.Function("nlp_jac_g", [x, p], [g, jacobian], ["x", "p"], ["g", "jac_g_x"]),
        "hess_lag": ca.Function(
            "nlp_hess_l",
            [x, p, sigma, lam],
            [ca.triu(hessian)],
            ["x", "p", "lam_f", "lam_g"],
            ["triu_hess_gamma_x_x"],
        ),
    }


def _weights(t: Transcription, k: int) -> slice:
    """Where in `x` the weights of stage `k` stand: those of the stage that it is tied to."""
    return t.variables[f"theta[{t.programs.owner[k]}]"]


def _stage_arguments(t: Transcription, x: ca.MX, k: int) -> tuple[ca.MX, ca.MX, ca.MX, ca.DM]:
    """States entering stage `k` (d, n), its weights (m, 1), the same repeated (m, n), what it reads."""
    n, step = t.programs.num_samples, t.programs.steps[k]
    theta = x[_weights(t, k)]
    state = (
        ca.MX(ca.DM(t.programs.inputs))
        if k == 0
        else ca.reshape(x[t.variables[f"x[{k}]"]], step.size1_in(0), n)
    )
    return state, theta, ca.repmat(theta, 1, n), ca.DM(t.programs.given[k])


def _places(t: Transcription, k: int, index: np.ndarray) -> np.ndarray:
    """Positions in `x` of the entries `index` of (x_k, theta_k), a row a sample."""
    d = t.programs.steps[k].size1_in(0)
    weights = _weights(t, k).start + index - d
    states = (t.variables[f"x[{k}]"].start if k else 0) + index
    samples = np.arange(t.programs.num_samples)[:, None] * d
    return np.where(index < d, states + samples, weights + 0 * samples)


def _jacobian(t: Transcription, x: ca.MX) -> ca.MX:
    values, rows, columns = [], [], []
    n = t.programs.num_samples
    for k, step in enumerate(t.programs.steps[: t.programs.joints]):
        a, theta, u = step.sx_in()
        d, e = step.size1_in(0), step.size1_out(0)
        block = ca.jacobian(step(a, theta, u)[0], ca.vertcat(a, theta))
        r, c = (np.array(v, int) for v in block.sparsity().get_triplet())
        kept = np.flatnonzero((c >= d) | (k > 0))  # x_0 is data
        f = ca.Function("slopes", [a, theta, u], [_entries(block, kept)])
        state, _, repeated, read = _stage_arguments(t, x, k)
        values.append(ca.vec(f.map(n)(state, repeated, read)))
        first = t.constraints[f"F[{k}] - x[{k + 1}]"].start
        rows.append((first + r[kept][None] + e * np.arange(n)[:, None]).ravel())
        columns.append(_places(t, k, c[kept]).ravel())
        values.append(ca.MX(-ca.DM.ones(e * n)))
        rows.append(first + np.arange(e * n))
        columns.append(t.variables[f"x[{k + 1}]"].start + np.arange(e * n))
    if t.sets.heights:
        first, column = t.lbg.size - t.sets.low.size, _own_columns(t)
        linear, squares = t.sets.A.tocoo(), t.sets.Q.tocoo()
        at = x[column[squares.col].tolist()]
        values += [ca.MX(ca.DM(linear.data)), ca.DM(2 * squares.data) * at]
        rows += [first + linear.row, first + squares.row]
        columns += [column[linear.col], column[squares.col]]
    shape = (t.nlp["g"].numel(), x.numel())
    return _assembled(shape, values, np.concatenate(rows), np.concatenate(columns))


def _curvature(name: str, cost: ca.Function) -> tuple[np.ndarray, np.ndarray, ca.Function]:
    """Rows and columns of the second derivatives of a cost in its one argument, and their values."""
    th = cost.sx_in()[0]
    block, _ = ca.hessian(cost(th), th)
    r, c = (np.array(v, int) for v in block.sparsity().get_triplet())
    return r, c, ca.Function(name, [th], [_entries(block, np.arange(len(r)))])


def _hessian(t: Transcription, x: ca.MX, sigma: ca.MX, lam: ca.MX) -> ca.MX:
    values, rows, columns = [], [], []
    n = t.programs.num_samples

    def add(value: ca.MX, row: np.ndarray, column: np.ndarray) -> None:
        values.append(ca.vec(value))
        rows.append(row.ravel())
        columns.append(column.ravel())

    for k, step in enumerate(t.programs.steps):
        a, theta, u = step.sx_in()
        d, s = step.size1_in(0), ca.SX.sym("s")
        after, cost = step(a, theta, u)
        if k < t.programs.joints:
            q = ca.SX.sym("q", step.size1_out(0))
            worth, end = (
                ca.dot(q, after),
                ca.reshape(lam[t.constraints[f"F[{k}] - x[{k + 1}]"]], q.numel(), n),
            )
        else:  # the terminal cost stands behind it
            q = ca.SX.sym("y", t.programs.targets.shape[0])
            worth, end = s * t.programs.terminal(after, q) / n, ca.MX(ca.DM(t.programs.targets))
        block, _ = ca.hessian(s * cost / n + worth, ca.vertcat(a, theta))
        r, c = (np.array(v, int) for v in block.sparsity().get_triplet())
        own = np.flatnonzero((r >= d) & (c >= d))  # weights alone: summed over samples
        rest = np.flatnonzero(((r < d) | (c < d)) & (k > 0))
        f = ca.Function(
            "curvatures", [a, theta, u, q, s], [_entries(block, rest), _entries(block, own)]
        )
        state, weights, repeated, read = _stage_arguments(t, x, k)
        apart, shared = f.map(n)(state, repeated, read, end, ca.repmat(sigma, 1, n))
        add(apart, _places(t, k, r[rest]), _places(t, k, c[rest]))
        first = _weights(t, k).start
        add(ca.sum2(shared), first + r[own] - d, first + c[own] - d)
        if t.programs.owner[k] != k:
            continue

        r, c, price = _curvature("price", t.programs.costs[k])
        add(sigma * price(weights), first + r, first + c)

    for k, coupling in t.programs.couplings.items():
        r, c, price = _curvature("coupling", coupling)
        first = _weights(t, k).start
        add(sigma * price(x[first : first + coupling.numel_in(0)]), first + r, first + c)

    if t.sets.Q.nnz:
        squares = t.sets.Q.tocoo()
        nu = lam[(t.lbg.size - t.sets.low.size + squares.row).tolist()]
        place = _own_columns(t)[squares.col]
        add(ca.DM(2 * squares.data) * nu, place, place)

    if not t.programs.folded:
        a, y = t.programs.terminal.sx_in()
        block, _ = ca.hessian(t.programs.terminal(a, y) / n, a)
        r, c = (np.array(v, int) for v in block.sparsity().get_triplet())
        last = t.variables[f"x[{len(t.programs.steps)}]"]
        f = ca.Function("end", [a, y], [_entries(block, np.arange(len(r)))])
        state = ca.reshape(x[last], a.numel(), n)
        offset = last.start + a.numel() * np.arange(n)[:, None]
        add(sigma * f.map(n)(state, t.programs.targets), offset + r, offset + c)
    return _assembled((x.numel(), x.numel()), values, np.concatenate(rows), np.concatenate(columns))


def _own_columns(t: Transcription) -> np.ndarray:
    """Positions in `x` of what the control set's rows are about: the weights, then the auxiliaries."""
    own = t.variables["t"]
    return np.concatenate([np.arange(t.sets.lower.size), np.arange(own.start, own.stop)])


def _entries(block: ca.SX, kept: np.ndarray) -> ca.SX:
    """Chosen nonzeros as one dense column."""
    return ca.vertcat(*[block.nz[int(i)] for i in kept]) if len(kept) else ca.SX(0, 1)


def _assembled(
    shape: tuple[int, int], values: list[ca.MX], rows: np.ndarray, columns: np.ndarray
) -> ca.MX:
    """The sparse matrix with these entries, those at one place added up."""
    vector = ca.vertcat(*values)
    places, target = np.unique(columns * shape[0] + rows, return_inverse=True)  # column-major
    sparsity = ca.Sparsity.triplet(
        *shape, (places % shape[0]).tolist(), (places // shape[0]).tolist()
    )
    gather = ca.DM.triplet(
        target.ravel().tolist(),
        list(range(len(rows))),
        ca.DM.ones(len(rows)),
        len(places),
        len(rows),
    )
    return ca.MX(sparsity, gather @ vector)
