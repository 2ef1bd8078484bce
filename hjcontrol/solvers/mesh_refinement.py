r"""Refinement of a collocated flow's mesh by its own error, piece by piece.

    e_k = max_i |x_{k+1}^i - flow(x_k^i, theta_k)|      x: the mesh's states, flow: diffrax at 1e-11
    elements of piece k  ->  times (e_k / allowed)^(1/p), 2 to 4, where e_k > allowed = tol max|x|

p    order of the scheme over a piece: 2s (Legendre), 2s - 1 (Radau)

The control's pieces stay: the problem is the same on every mesh. The next solve begins at the weights and
states of the last one, between its points on the collocation polynomials.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.networks import Flow
from hjcontrol.networks.flow_numerics import tight
from hjcontrol.solvers import collocation
from hjcontrol.solvers.transcription import Transcription

TIGHT = 1e-11  # tolerances of the reference, where the dtype resolves them


def errors(problem: ControlProblem, states: Trajectory, weights: Any) -> tuple[np.ndarray, float]:
    """`e_k` of every stage, 0 of one that is no flow, infinite where diffrax fails; and `max|x|`."""
    thetas, found = problem.chain.unstack(weights), np.zeros(len(problem.chain))
    tolerance = max(TIGHT, 100 * float(jnp.finfo(problem.dtype).eps))
    for k, theta in enumerate(thetas):
        stage = problem.chain[k]
        if isinstance(stage, Flow):
            exact = eqx.tree_at(lambda flow: flow.numerics, stage, tight(stage.numerics, tolerance))
            ends = _ends(exact, states[k], theta)
            gaps = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), ends, states[k + 1])
            gap = max(map(float, jax.tree.leaves(gaps)))
            found[k] = gap if np.isfinite(gap) else np.inf
    return found, max(float(jnp.max(jnp.abs(a))) for a in jax.tree.leaves(states))


@eqx.filter_jit
def _ends(stage: Flow, x: Any, theta: Any) -> Any:
    return jax.vmap(lambda a: stage.step(a, theta))(x)


def split(t: Transcription, found: np.ndarray, allowed: float) -> tuple[int, ...]:
    """More elements for the pieces that miss by more than is allowed."""
    order = 2 * t.degree - (t.kind == "radau")
    old = np.broadcast_to(np.asarray(t.elements), found.shape)
    wanted = np.ceil(np.minimum(found / allowed, 1e9) ** (1 / order))
    return tuple(int(e) for e in np.where(found > allowed, old * np.clip(wanted, 2, 4), old))


def begun(old: Transcription, x: np.ndarray, new: Transcription) -> Transcription:
    """The program on another mesh, begun where the one on the old mesh ended."""
    x0, x = new.x0.copy(), np.asarray(x, float).ravel()
    start = old.programs.inputs.T.ravel()
    for name, place in new.variables.items():
        if not name.startswith("z["):
            x0[place] = x[old.variables[name]]
            continue
        k, n = int(name[2:-1]), old.programs.num_samples
        before = start if k == 0 else x[old.variables[f"x[{k}]"]]
        schemes = [collocation.of_piece((t.kind, t.degree, t.elements), k) for t in (old, new)]
        x0[place] = resampled(before, x[old.variables[name]], n, *schemes)
    return dataclasses.replace(new, x0=x0)


def resampled(
    before: np.ndarray,
    interior: np.ndarray,
    n: int,
    old: tuple[str, int, int],
    new: tuple[str, int, int],
) -> np.ndarray:
    """Interior states of one piece at the points of another mesh, on the old one's polynomials."""
    name, degree, count = old
    nodes = np.array([0.0, *collocation.times((name, degree, 1))])
    blocks = np.concatenate([before, interior]).reshape(-1, n, before.size // n)
    found = []
    for at in collocation.times(new):
        e = min(int(at * count), count - 1)
        values = blocks[e * (degree + 1) : (e + 1) * (degree + 1)]
        found.append(np.tensordot(_lagrange(nodes, at * count - e), values, 1).ravel())
    return np.concatenate(found)


def _lagrange(nodes: np.ndarray, at: float) -> np.ndarray:
    """The Lagrange polynomials of some nodes at one place."""
    apart = nodes[:, None] - nodes[None]
    np.fill_diagonal(apart, 1.0)
    terms = np.where(np.eye(len(nodes), dtype=bool), 1.0, (at - nodes[None]) / apart)
    return terms.prod(axis=1)
