r"""A control problem's pieces as CasADi functions, one sample a column.

    F_k(x, theta, u) -> (x_next, l)      Phi(x, y)      r(theta)      c(theta_j .. theta_k)      g(x, y)

Equal stages share their functions.
"""

import dataclasses
from typing import Any

import casadi as ca
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.shapes import of_drawn, of_one
from hjcontrol.control import ControlProblem
from hjcontrol.control.hamiltonians import given_at
from hjcontrol.networks import Flow, advance
from hjcontrol.solvers.casadi_replay import casadi_function
from hjcontrol.solvers.direct_paths import PathRows, owners, path_rows


@dataclasses.dataclass(frozen=True)
class Programs:
    """The problem's pieces as CasADi functions of columns, one sample each.

    `steps[k](x, theta, u) -> (x_next, l)`, `terminal(x, y) -> Phi`, `costs[k](theta) -> r`. `owner[k]`:
    the first stage that uses the weights of stage `k` (itself, unless it is tied to earlier ones);
    `given[k]`: what stage `k` reads, with no rows if nothing. `couplings[k]`: a cost of the weights of
    the whole run that begins at stage `k`, one after the other.
    `spans[k]`: the length of a flow's piece, whose step gives its velocity in place of `x_next`; `None`
    for a discrete stage. `ending(x, y) -> g`: the terminal constraint. `paths`: those along depth.
    """

    steps: list[ca.Function]
    terminal: ca.Function
    ending: ca.Function | None
    costs: list[ca.Function]
    states: list[Any]  # one sample's x_0 .. x_K, trees of shapes
    inputs: np.ndarray  # (d_0, n)
    targets: np.ndarray  # (entries, n)
    given: list[np.ndarray]  # (entries, n) each
    owner: list[int]
    couplings: dict[int, ca.Function]
    spans: list[float | None]
    paths: PathRows
    whole: bool = False  # every state is a variable

    @property
    def num_samples(self) -> int:
        return self.inputs.shape[1]

    @property
    def folded(self) -> bool:
        """Whether the last stage is written into the terminal cost. Not if it widens: a sample's states
        would then meet its weights in a dense block larger than what is saved."""
        last = self.steps[-1]
        plain = self.spans[-1] is None and self.ending is None and not self.paths.at_end
        return (
            not self.whole
            and len(self.steps) > 1
            and plain
            and last.size1_out(0) <= last.size1_in(0)
        )

    @property
    def joints(self) -> int:
        """The number of states x_1, x_2, .. that are variables, unless shooting is single."""
        return len(self.steps) - self.folded


def programs_of(problem: ControlProblem, bounded: bool = True) -> Programs:
    """The pieces of `problem`. `bounded`: states are variables, which may have bounds.

    **Raises:** `UnsupportedPrimitiveError` for one that CasADi cannot express.
    """
    chain, n = problem.chain, problem.num_samples
    weights = of_drawn(problem.init)
    thetas = jax.eval_shape(chain.unstack, weights)
    states = _states(problem, weights)
    read = [given_at(problem, k) for k in range(len(chain))]
    made = _stage_functions(problem, states, thetas, read)
    ends = (states[-1], of_one(problem.targets))
    terminal = casadi_function(problem.terminal_cost, *ends, name="Phi", stage="the terminal cost")
    ending = problem.terminal_constraint
    if ending is not None:
        ending = casadi_function(ending, *ends, name="g", stage="the terminal constraint")
    return Programs(
        steps=[step for step, _ in made],
        terminal=terminal,
        ending=ending,
        costs=[cost for _, cost in made],
        states=states,
        inputs=columns(n, problem.inputs),
        targets=columns(n, problem.targets),
        given=[columns(n, u) for u in read],
        owner=owners(problem),
        couplings=_couplings(problem, thetas),
        spans=[_span(chain[k]) for k in range(len(chain))],
        paths=path_rows(problem, states, read, thetas, bounded),
    )


def _states(problem: ControlProblem, weights: Any) -> list[Any]:
    """One sample's `x_0 .. x_K`, as shapes."""
    rollout = jax.eval_shape(problem.rollout, weights)
    runs = zip(rollout.runs, problem.chain.runs, strict=True)
    states = [of_one(of_one(xs)) for xs, run in runs for _ in range(run.length)]
    return [*states, of_one(rollout.final)]


def _span(stage: Any) -> float | None:
    return float(stage.t1 - stage.t0) if isinstance(stage, Flow) else None


def columns(n: int, tree: Any) -> np.ndarray:
    """Leaves of `n` samples, flat, one column per sample."""
    leaves = [np.asarray(a).reshape(n, -1) for a in jax.tree.leaves(tree)]
    return np.concatenate([np.zeros((n, 0)), *leaves], axis=1).T.astype(float)


def _stage_functions(
    problem: ControlProblem, states: list[Any], thetas: list[Any], read: list[Any]
) -> list[tuple[ca.Function, ca.Function]]:
    """By stage, its step and its weight cost. Equal stages share them: those of one run (hence of one
    code) whose arrays are equal."""
    made: dict[Any, tuple[ca.Function, ca.Function]] = {}
    runs = [r for r, run in enumerate(problem.chain.runs) for _ in range(run.length)]
    keys = []
    for k, r in enumerate(runs):
        stage = problem.chain[k]
        stage = stage.drift if isinstance(stage, Flow) else stage  # its velocity
        arrays = [a for a in jax.tree.leaves(stage) if isinstance(a, jax.Array | np.ndarray)]
        keys.append((r, *[np.asarray(a).tobytes() for a in arrays]))
        if keys[-1] not in made:
            shapes = (states[k], thetas[k], of_one(read[k]))
            made[keys[-1]] = _step_and_cost(problem, k, stage, shapes)
    return [made[key] for key in keys]


def _step_and_cost(
    problem: ControlProblem, k: int, stage: Any, shapes: tuple[Any, Any, Any]
) -> tuple[ca.Function, ca.Function]:
    """The step of stage `k` with its state cost, and its weight cost."""
    x, theta, u = shapes
    name = f"stage {k} ({type(stage).__name__})"
    real = lambda v: jnp.asarray(v, problem.dtype)
    step = lambda x, th, u: (advance(stage, x, th, u), real(problem.state_cost(x, th, u)))
    cost = lambda th: real(problem.weight_cost(th))
    return (
        casadi_function(step, x, theta, u, name=f"F{k}", stage=name),
        casadi_function(cost, theta, name=f"r{k}", stage=f"the weight cost of {name}"),
    )


def _couplings(problem: ControlProblem, thetas: list[Any]) -> dict[int, ca.Function]:
    found, k = {}, 0
    for run in problem.chain.runs:
        if problem.couples and not run.tied and run.length > 1:
            together = lambda own: problem.coupling(
                jax.tree.map(lambda *a: jnp.concatenate([b[None] for b in a]), *own)
            )
            own = thetas[k : k + run.length]
            found[k] = casadi_function(
                together, own, name=f"c{k}", stage=f"the coupling of stages from {k}"
            )
        k += run.length
    return found
