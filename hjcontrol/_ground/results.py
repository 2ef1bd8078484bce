"""Outcomes: how a solve can end, each with its remedy.

A numerical failure is a value, never a surprise: `solution.result` holds one of these, and
`throw=True` raises it. Wrong types and shapes are not results; they raise `ValueError` at once.
"""

import equinox as eqx


class RESULTS(eqx.Enumeration):
    """How a solve ended. The message of each member says what to do about it.

    **Example:**

        >>> import hjcontrol as hj
        >>> print(hj.RESULTS[hj.RESULTS.nonfinite].split(".")[0])
        The objective or its gradient became NaN or infinite
    """

    successful = ""
    max_steps_reached = (
        "The step limit was reached before the stationarity tolerance. Raise `max_steps`, "
        "loosen `tol`, or continue with `init=solution.weights`."
    )
    nonfinite = (
        "The objective or its gradient became NaN or infinite. The last finite weights are "
        "returned. Reduce the learning rate, the Euler step `h` or the scale of the inputs."
    )
    stagnated = (
        "No further decrease is possible in this precision, and the stationarity tolerance is "
        "not met. Loosen `tol`, or use float64."
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
        "The nonlinear program ended away from feasibility. Start it from a rollout "
        "(`init=` another solution's weights), or use `transcription='single'`."
    )
    solver_failed = (
        "The third-party solver reported a failure; its own words are in "
        "`solution.stats['message']`."
    )
    boundary_unmet = (
        "Shooting found no costate that meets the condition at the end. Cut the depth into more "
        "`segments`, use `homotopy=` (a path of problems), or start from another method's solution."
    )
