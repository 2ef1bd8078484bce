"""What each solver declares, who of them can treat a problem, and which one `auto` takes.

The table is made from the declarations in `solver.py`; nothing is kept in two places.
"""

from typing import Any, NamedTuple

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.by_shape import looked_at_once
from hjcontrol._ground.record import Record
from hjcontrol._ground.third_party import MissingPackageError, installed
from hjcontrol.control import ControlProblem, Free
from hjcontrol.control.capability import require
from hjcontrol.control.path_checks import names_of
from hjcontrol.control.training import refuse_noise
from hjcontrol.networks import Flow
from hjcontrol.solvers.names import NAMES, by_name
from hjcontrol.solvers.solver import MEANING, SETS, AbstractSolver, summed


@admits()
def admit(problem: ControlProblem, solver: AbstractSolver) -> None:
    """Raise `ValueError`, with the reason and what to do, unless `solver` can treat `problem`."""
    require(problem, "reverse", solver.name)
    require(problem, solver.asks, solver.name)
    if not solver.streams:
        refuse_noise(problem, solver.name)
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
            "stages, or use 'gradient', or hj.solvers.Direct(transcription='legendre')."
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
            f"{solver.name}: it takes no constraint on the final states. Use "
            f"{', '.join(able)}{_around(solver)}."
        )
    if problem.path and not solver.path:
        able = [n for n in NAMES if by_name(n).path]
        raise ValueError(
            f"{solver.name}: it takes no constraint along depth; found "
            f"{', '.join(map(repr, names_of(problem.path)))}. Use {', '.join(able)}{_around(solver)}."
        )
    solver.check(problem)


def _around(solver: AbstractSolver) -> str:
    return f", or hj.solvers.AugmentedLagrangian({solver.name}) around it" if solver.priced else ""


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


ALONE = (
    "one sample of few states: Riccati sweeps with exact curvature, one if it is linear-quadratic"
)
PREFERENCE = {
    "newton": "smooth, its weights free or bounded: the one that reaches roundoff",
    "gradient": "projected steps suit any convex set, and no second derivative is needed",
    "direct": "a constraint that a nonlinear program takes, with its multipliers",
    "augmented-newton": "constraints for any number of samples, with their multipliers",
    "discrete-msa": "the only one that keeps weights in a finite set",
}


@looked_at_once()
def first(problem: ControlProblem) -> AbstractSolver:
    """The method that `select` names, found without asking the others."""
    for name in _reasons(problem):
        solver = by_name(name)
        if _refusal(problem, solver) is None:
            return solver
    return by_name(select(problem).name)  # it says why there is none


def _unable(problem: ControlProblem, method: AbstractSolver) -> str | None:
    """Why a method cannot treat a problem, by its declarations; `None` if it can."""
    try:
        admit(problem, method)
    except (ValueError, MissingPackageError) as error:
        return str(error).split(": ", 1)[-1]
    if method.package is not None and not installed(method.package):
        return f"{method.package} is not installed."
    if problem.stream is not None and not (method.streams or summed(problem, method)):
        return "it needs the states of all samples, which come in batches."
    if method.ensemble is not None and problem.num_samples > method.ensemble:
        return f"meant for at most {method.ensemble} samples; found {problem.num_samples}."
    return None


def _refusal(problem: ControlProblem, method: AbstractSolver) -> str | None:
    """Why a method would not be chosen: what it runs on and what it builds is asked too."""
    why = _unable(problem, method)
    if why is not None:
        return why
    try:
        method.ready()
    except (ValueError, MissingPackageError) as error:
        return str(error).split(": ", 1)[-1]
    try:
        method.tried(problem)
    except ValueError as error:
        return str(error)
    return None


@admits()
def select(problem: ControlProblem) -> Selection:
    """The solver for `problem` by its declarations: the first of `newton`, `gradient`, `direct`,
    `augmented-newton`, `discrete-msa` that can treat it; with a control set `direct` before `gradient`;
    before them `ddp` for one sample of few states.

    **Returns:** a `Selection`; `by_name(selection.name)` is the solver.

    **Raises:** `ValueError` if none can.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> stages = [hj.networks.Residual(hj.networks.Dense(1, 1), 0.5)] * 3
        >>> problem = hj.ControlProblem(
        ...     stages, x, jnp.sin(x), terminal=hj.least_squares, running=hj.Ridge(0.1)
        ... )
        >>> from hjcontrol.solvers.selection import select
        >>> select(problem).name
        'newton'
    """
    chosen, others, reasons = None, {}, _reasons(problem)
    for name in sorted(NAMES, key=lambda n: [*reasons, n].index(n)):
        solver, wanted = by_name(name), chosen is None and name in reasons
        why = (_refusal if wanted else _unable)(problem, solver)
        if why is None and wanted:
            chosen = name
        else:
            others[name] = why or "able"
    if chosen is None:
        refused = "\n".join(f"  {n}: {why}" for n, why in others.items())
        raise ValueError(f"select: no solver can treat this problem.\n{refused}")
    return Selection(chosen, reasons[chosen], others)


def _reasons(problem: ControlProblem) -> dict[str, str]:
    """The solvers that may be chosen, best first, each with its reason."""
    order = list(PREFERENCE)
    if not isinstance(problem.control_set, Free):  # the one that has multipliers comes first
        order.sort(key=lambda n: (n != "newton", n == "gradient"))
        order.sort(key=lambda n: n == "discrete-msa")
    if problem.stream is not None:
        whole = "newton" if problem.stream.rows is not None else "adam"
        return {whole: "samples that are read from a file, or come in batches"}
    reasons = {name: PREFERENCE[name] for name in order}
    if problem.num_samples > 1 or not isinstance(problem.control_set, Free):
        return reasons
    from hjcontrol.solvers.riccati.ensemble import small

    return ({"ddp": ALONE} if small(problem) else {}) | reasons


COLUMNS = (
    "traceable",
    "asks",
    "sets",
    "minibatch",
    "duals",
    "flows",
    "couples",
    "terminal",
    "path",
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
