r"""Derivatives of the multiple-shooting program, block by block.

    L = s f + sum_k,i p_{k+1}^i . (F_k(x_k^i, theta_k) - x_{k+1}^i)
    dg/d(x, theta):     one block (F_x, F_theta) a sample and stage, and -1 for x_{k+1}
    d2L/d(x, theta)^2:  one block a sample and stage, the theta-theta part summed over samples

CasADi would find the whole Hessian by colouring: as many directions as a stage has weights. One
sample's blocks are exact and small; the rest is bookkeeping of positions, done once.
"""

from collections.abc import Iterator

import casadi as ca
import numpy as np

from hjcontrol.solvers.transcription import Transcription

Block = tuple[ca.MX, np.ndarray, np.ndarray]  # entries of a matrix, their rows and columns


def derivatives(t: Transcription) -> dict[str, ca.Function]:
    """`grad_f`, `jac_g`, `hess_lag` as `casadi.nlpsol` takes them in its options."""
    x, p = t.nlp["x"], ca.MX.sym("p", 0)
    sigma, lam = ca.MX.sym("lam_f"), ca.MX.sym("lam_g", t.nlp["g"].numel())
    f, g = t.nlp["f"], t.nlp["g"]
    jacobian = _assembled((g.numel(), x.numel()), _slopes(t, x))
    hessian = _assembled((x.numel(), x.numel()), _curvatures(t, x, sigma, lam))
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


def _slopes(t: Transcription, x: ca.MX) -> Iterator[Block]:
    """First derivatives of the dynamics, stage by stage, and of the control set's rows."""
    n = t.programs.num_samples
    for k, step in enumerate(t.programs.steps[: t.programs.joints]):
        a, theta, u = step.sx_in()
        d, e = step.size1_in(0), step.size1_out(0)
        block = ca.jacobian(step(a, theta, u)[0], ca.vertcat(a, theta))
        r, c = (np.array(v, int) for v in block.sparsity().get_triplet())
        kept = np.flatnonzero((c >= d) | (k > 0))  # x_0 is data
        f = ca.Function("slopes", [a, theta, u], [_entries(block, kept)])
        state, _, repeated, read = _stage_arguments(t, x, k)
        first, each = t.constraints[f"F[{k}] - x[{k + 1}]"].start, np.arange(e * n)
        row = first + r[kept][None] + e * np.arange(n)[:, None]
        yield f.map(n)(state, repeated, read), row, _places(t, k, c[kept])
        after = t.variables[f"x[{k + 1}]"].start
        yield ca.MX(-ca.DM.ones(e * n)), first + each, after + each
    if t.sets.heights:
        first, column = t.lbg.size - t.sets.low.size, _own_columns(t)
        linear, squares = t.sets.A.tocoo(), t.sets.Q.tocoo()
        at = x[column[squares.col].tolist()]
        yield ca.MX(ca.DM(linear.data)), first + linear.row, column[linear.col]
        yield ca.DM(2 * squares.data) * at, first + squares.row, column[squares.col]


def _curvatures(t: Transcription, x: ca.MX, sigma: ca.MX, lam: ca.MX) -> Iterator[Block]:
    """Second derivatives of the Lagrangian, of all that it is a sum of."""
    for k in range(len(t.programs.steps)):
        yield from _of_stage(t, x, sigma, lam, k)
        if t.programs.owner[k] == k:
            yield _of_weights(t, x, sigma, k, "price", t.programs.costs[k])
    for k, coupling in t.programs.couplings.items():
        yield _of_weights(t, x, sigma, k, "coupling", coupling)
    if t.sets.Q.nnz:
        squares = t.sets.Q.tocoo()
        nu = lam[(t.lbg.size - t.sets.low.size + squares.row).tolist()]
        place = _own_columns(t)[squares.col]
        yield ca.DM(2 * squares.data) * nu, place, place
    if not t.programs.folded:
        yield _of_end(t, x, sigma)


def _of_stage(t: Transcription, x: ca.MX, sigma: ca.MX, lam: ca.MX, k: int) -> Iterator[Block]:
    """Of stage `k`'s state cost and of its multipliers' product with the next states; of a
    folded last stage, of the terminal cost behind it."""
    n, step = t.programs.num_samples, t.programs.steps[k]
    a, theta, u = step.sx_in()
    d, s = step.size1_in(0), ca.SX.sym("s")
    after, cost = step(a, theta, u)
    if k < t.programs.joints:
        q = ca.SX.sym("q", step.size1_out(0))
        worth = ca.dot(q, after)
        end = ca.reshape(lam[t.constraints[f"F[{k}] - x[{k + 1}]"]], q.numel(), n)
    else:  # the terminal cost stands behind it
        q = ca.SX.sym("y", t.programs.targets.shape[0])
        worth = s * t.programs.terminal(after, q) / n
        end = ca.MX(ca.DM(t.programs.targets))
    block, _ = ca.hessian(s * cost / n + worth, ca.vertcat(a, theta))
    r, c = (np.array(v, int) for v in block.sparsity().get_triplet())
    own = np.flatnonzero((r >= d) & (c >= d))  # weights alone: summed over samples
    rest = np.flatnonzero(((r < d) | (c < d)) & (k > 0))
    f = ca.Function(
        "curvatures", [a, theta, u, q, s], [_entries(block, rest), _entries(block, own)]
    )
    state, _, repeated, read = _stage_arguments(t, x, k)
    apart, shared = f.map(n)(state, repeated, read, end, ca.repmat(sigma, 1, n))
    yield apart, _places(t, k, r[rest]), _places(t, k, c[rest])
    first = _weights(t, k).start
    yield ca.sum2(shared), first + r[own] - d, first + c[own] - d


def _of_weights(
    t: Transcription, x: ca.MX, sigma: ca.MX, k: int, name: str, cost: ca.Function
) -> Block:
    """Of a cost of weights alone, those from stage `k` on."""
    th = cost.sx_in()[0]
    block, _ = ca.hessian(cost(th), th)
    r, c = (np.array(v, int) for v in block.sparsity().get_triplet())
    price = ca.Function(name, [th], [_entries(block, np.arange(len(r)))])
    first = _weights(t, k).start
    return sigma * price(x[first : first + th.numel()]), first + r, first + c


def _of_end(t: Transcription, x: ca.MX, sigma: ca.MX) -> Block:
    """Of the terminal cost, whose states are variables."""
    n = t.programs.num_samples
    a, y = t.programs.terminal.sx_in()
    block, _ = ca.hessian(t.programs.terminal(a, y) / n, a)
    r, c = (np.array(v, int) for v in block.sparsity().get_triplet())
    last = t.variables[f"x[{len(t.programs.steps)}]"]
    f = ca.Function("end", [a, y], [_entries(block, np.arange(len(r)))])
    state = ca.reshape(x[last], a.numel(), n)
    offset = last.start + a.numel() * np.arange(n)[:, None]
    return sigma * f.map(n)(state, t.programs.targets), offset + r, offset + c


def _own_columns(t: Transcription) -> np.ndarray:
    """Positions in `x` of what the control set's rows are about: the weights, then the auxiliaries."""
    own = t.variables["t"]
    return np.concatenate([np.arange(t.sets.lower.size), np.arange(own.start, own.stop)])


def _entries(block: ca.SX, kept: np.ndarray) -> ca.SX:
    """Chosen nonzeros as one dense column."""
    return ca.vertcat(*[block.nz[int(i)] for i in kept]) if len(kept) else ca.SX(0, 1)


def _assembled(shape: tuple[int, int], blocks: Iterator[Block]) -> ca.MX:
    """The sparse matrix of these blocks, entries at one place added up."""
    values, rows, columns = zip(*blocks, strict=True)
    vector = ca.vertcat(*[ca.vec(v) for v in values])
    rows, columns = (np.concatenate([i.ravel() for i in each]) for each in (rows, columns))
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
