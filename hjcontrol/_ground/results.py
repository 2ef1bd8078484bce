"""Outcomes: how a solve, a search or a program can end, each with its remedy.

A numerical failure is a value, never a surprise: `solution.result` holds one of these, and
`throw=True` raises it. Wrong types and shapes are not results; they raise `ValueError` at once.
"""

from typing import Any

import equinox as eqx
import numpy as np


class RESULTS(eqx.Enumeration):
    """How a solve ended. The message of each member says what to do about it.

    **Example:**

        >>> import hjcontrol as hj
        >>> print(hj.RESULTS[hj.RESULTS.nonfinite].split(".")[0])
        The objective or its gradient became NaN or infinite
    """

    successful = "The tolerance was met: successful."
    max_steps_reached = (
        "The step limit was reached before the stationarity tolerance. Raise `max_steps`, "
        "loosen `tol`, or continue with `init=solution.weights`."
    )
    nonfinite = (
        "The objective or its gradient became NaN or infinite. The last finite weights are "
        "returned. Reduce the learning rate, the Euler step `h` or the scale of the inputs; move "
        "the starts of a search to where its functions are finite."
    )
    stagnated = (
        "No further decrease is possible in this precision, and the stationarity tolerance is "
        "not met. Loosen `tol`, or use float64."
    )
    no_descent = (
        "The model of the objective predicts a decrease that no step along it shows. Ask `hj.verify` "
        "whether a derivative is wrong; where a cost or a stage has a kink, smooth it or use `gradient`."
    )
    open_loop_unstable = (
        "The dynamics amplify roundoff until the objective cannot be evaluated from the weights in this "
        "precision. States and objective are those that the solver found apart from them; act by "
        "`solution.feedback` of 'riccati' or 'ddp', or state the problem about a stabilising feedback."
    )
    diverged = (
        "The sweeps drove the objective up without bound. The weights of the smallest objective met are "
        "returned. Use `ExtendedMSA`, which descends by construction, or raise the weight cost."
    )
    oscillating = (
        "The sweeps go round without progress, the objective rising again and again. The weights of the "
        "smallest objective met are returned. Use `ExtendedMSA`, which descends by construction."
    )
    infeasible = (
        "No point that meets the constraints was found. Start a nonlinear program from a rollout "
        "(`init=` another solution's weights), or use `transcription='single'`; check the signs of a "
        "convex program's parameters, or relax a constraint with a penalised slack."
    )
    solver_failed = (
        "The third-party solver reported a failure; its own words are in "
        "`solution.stats['message']`."
    )
    too_coarse = (
        "The discrete problem is solved, but its mesh is too coarse for the equation; "
        "`solution.stats['message']` says where and by how much. Take more stages, `elements` or a "
        "higher `degree`; for free steps `FreeStep(scheme='rk4')`, or bounds on their lengths."
    )
    unconfirmed = (
        "The third-party solver reports success, but the optimality conditions measured afterwards miss "
        "the tolerance; `solution.stats['message']` says by how much. Give it a finer tolerance of its "
        "own in `options`, loosen `tol`, or use ipopt."
    )
    boundary_unmet = (
        "Shooting found no costate that meets the condition at the end. Cut the depth into more "
        "`segments`, use `homotopy=` (a path of problems), or start from another method's solution."
    )
    unbounded = (
        "The objective falls without bound at these parameters (a feasible direction was found). Add a "
        "constraint, or a small quadratic term."
    )
    not_converged = (
        "No pair of point and multipliers was found whose measures are within the tolerance. Look at "
        "`point.measure`, try the other `engine=`, or a named layer of the same program."
    )
    not_unique = (
        "The program leaves entries of a variable undecided: the values are one optimum of many, and "
        "derivatives are those of the entries decided. Add a small strongly convex term."
    )
    courant_exceeded = (
        "In some step the Courant number, measured from the slopes at hand, was above the limit of "
        "the scheme. Take more steps (`steps=`, or a smaller `fraction` of the limit)."
    )
    blown_up = (
        "The solution became NaN or infinite. Take more steps; if the data are finite and the "
        "Courant number within its limit, look whether H is finite at the slopes met."
    )
    agreed = (
        "Several starts ended at the value returned and none below it. That is evidence, not a proof: "
        "the value is an upper bound on the minimum."
    )
    lonely = (
        "Only one start ended at the value returned. It is an upper bound on the minimum; a lower one "
        "is likely. Raise `starts`, or widen `radius`."
    )
    stopped = (
        "The run was stopped before the tolerance or the step limit; `solution.stats['message']` says by "
        "what. Continue with `init=solution.weights`."
    )


GOOD = ("successful", "agreed")  # no remedy is needed


def name_of(result: Any) -> str:
    """The name of a result, such as `"max_steps_reached"`. Inside `jit` it is `"traced"`; of a batch of
    results each name is told once."""
    if result.is_traced():
        return "traced"
    names = list(RESULTS._name_to_item)  # pyright: ignore[reportAttributeAccessIssue]
    return ", ".join(names[k] for k in np.unique(np.asarray(result._value)))
