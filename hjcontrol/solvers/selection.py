"""What each solver declares, who of them can treat a problem, and which one `auto` takes.

The table is made from the declarations in `solver.py`; nothing is kept in two places.
"""

from typing import Any, NamedTuple

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Record
from hjcontrol._ground.third_party import MissingPackageError, installed
from hjcontrol.control import ControlProblem
from hjcontrol.control.capability import require
from hjcontrol.networks import Flow
from hjcontrol.solvers.names import NAMES, by_name
from hjcontrol.solvers.solver import MEANING, SETS, AbstractSolver


@admits()
def admit(problem: ControlProblem, solver: AbstractSolver) -> None:
    """Raise `ValueError`, with the reason and what to do, unless `solver` can treat `problem`."""
    require(problem, "reverse", solver.name)
    require(problem, solver.asks, solver.name)
    found = problem.control_set
    if not SETS[solver.sets](found):
        able = [n for n in NAMES if SETS[by_name(n).sets](found)]
        raise ValueError(
            f"{solver.name}: it treats control sets of the kind {solver.sets!r}; found a "
            f"{type(found).__name__} ({solver.sets!r}: {MEANING[solver.sets]}). "
            + (f"These treat it: {', '.join(able)}." if able else "No solver treats it.")
        )
    if not solver.flows and any(isinstance(run.stage, Flow) for run in problem.chain.runs):
        raise ValueError(
            f"{solver.name}: it treats stages of discrete depth; found a Flow. State it as Residual "
            "stages, or use 'gradient'."
        )
    if problem.couples and not solver.couples:
        able = [n for n in NAMES if by_name(n).couples]
        raise ValueError(
            f"{solver.name}: it minimises stage by stage, and a running cost couples the stages "
            f"(Smoothing). These treat it: {', '.join(able)}."
        )
    if problem.terminal_constraint is not None and not solver.terminal:
        able = [n for n in NAMES if by_name(n).terminal]
        raise ValueError(
            f"{solver.name}: it takes no constraint on the final states. Solve "
            "`hj.control.augmented(problem, nu, strength)`, and update `nu` until the constraint holds"
            + (f"; or use {', '.join(able)}." if able else ".")
        )
    solver.check(problem)


class Selection(NamedTuple):
    """The solver that `auto` takes, why, and why not the others. `print` it."""

    name: str
    reason: str
    others: dict[str, str]

    def as_record(self) -> Record:
        """What this result says of itself."""
        able = [n for n, why in self.others.items() if why == "able"]
        refused = {n: why for n, why in self.others.items() if why != "able"}
        also = {"able": ", ".join(able)} if able else {}
        return Record(self.name, f"chosen: {self.reason}", facts=also | refused)

    def __str__(self) -> str:
        return str(self.as_record())


PREFERENCE = {
    "newton": "smooth, its weights free or bounded: the one that reaches roundoff",
    "gradient": "weights free, and no second derivative needed",
    "direct": "a constraint that a nonlinear program takes, with its multipliers",
    "adam": "projected steps suit any convex set",
    "discrete-msa": "the only one that keeps weights in a finite set",
}


@admits()
def select(problem: ControlProblem) -> Selection:
    """The solver for `problem` by its declarations: the first of `newton`, `gradient`, `direct`, `adam`,
    `discrete-msa` that can treat it.

    **Returns:** a `Selection`; `by_name(selection.name)` is the solver.

    **Raises:** `ValueError` if none can.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> problem = hj.ControlProblem(
        ...     [hj.networks.Residual(hj.networks.Dense(1, 1), 0.5)] * 3,
        ...     x,
        ...     jnp.sin(x),
        ...     terminal=hj.control.least_squares,
        ...     running=hj.control.Ridge(0.1),
        ... )
        >>> from hjcontrol.solvers.selection import select
        >>> select(problem).name
        'newton'
    """
    chosen, others = None, {}
    for name in sorted(NAMES, key=lambda n: [*PREFERENCE, n].index(n)):
        solver = by_name(name)
        try:
            admit(problem, solver)
            if chosen is None and name in PREFERENCE:
                solver.ready()
        except (ValueError, MissingPackageError) as error:
            others[name] = str(error).split(": ", 1)[-1]
            continue
        if solver.package is not None and not installed(solver.package):
            others[name] = f"{solver.package} is not installed."
        elif solver.ensemble is not None and problem.num_samples > solver.ensemble:
            others[name] = (
                f"meant for at most {solver.ensemble} samples; found {problem.num_samples}."
            )
        elif chosen is None and name in PREFERENCE:
            chosen = name
        else:
            others[name] = "able"
    if chosen is None:
        reasons = "\n".join(f"  {n}: {why}" for n, why in others.items())
        raise ValueError(f"select: no solver can treat this problem.\n{reasons}")
    return Selection(chosen, PREFERENCE[chosen], others)


COLUMNS = (
    "traceable",
    "asks",
    "sets",
    "minibatch",
    "duals",
    "flows",
    "couples",
    "terminal",
    "ensemble",
)


def capabilities() -> list[dict[str, Any]]:
    """One row per solver: its name and what it declares."""
    return [{"method": n} | {c: getattr(by_name(n), c) for c in COLUMNS} for n in NAMES]


def capability_table() -> str:
    """`capabilities` as a Markdown table."""
    words = {True: "yes", False: "-", None: "any number"}
    heads = ("method", *COLUMNS)
    cell = lambda v: words[v] if v is None or isinstance(v, bool) else str(v)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cell(row[h]) for h in heads) + " |" for row in capabilities()]
    return "\n".join(lines) + "\n"
