r"""Real targets of `hjcontrol solve`: `[costs] terminal = "least-squares"` is regression on them.

    R^2 = 1 - sum (y - f(x))^2 / sum (y - mean y)^2        RMSE in the target's own units

Targets are standardised like features; what is told is not. A target of classes stays one.
"""

from typing import Any

import hjcontrol as hj
from hjcontrol._ground.record import Quantity
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.terminal import Screen

LEAST_SQUARES = "least-squares"


def loaded(asked: Any, screen: Screen) -> Any:
    """The data: classes where the target has them, else real numbers for least squares.

    **Raises:** `CommandError` for real targets under another terminal cost, `DataError` for data.
    """
    from hjcontrol.data.dataset import RealTargetError

    try:
        return hj.data.load(asked.data, asked.target, encode=asked.encode)
    except RealTargetError as error:
        if asked.costs.get("terminal") != LEAST_SQUARES:
            raise CommandError(
                f"{error.found} For regression write [costs] terminal = {LEAST_SQUARES!r} in "
                f"{asked.problem}; for classes name another target."
            ) from None
        data = hj.data.load(asked.data, asked.target, regression=True, encode=asked.encode)
        screen.line(f"least-squares on real targets: {error.found}")
        return data


def scores(outputs: Any, targets: Any, target_scale: float) -> dict[str, float | None]:
    """`R^2`, `None` for constant targets, and the root mean square error in the target's own units.

    - `targets`: standardised, as the outputs `(n, 1)` are; `target_scale` is what divided them.
    """
    import numpy as np

    squares = float(np.mean((np.asarray(outputs)[:, 0] - targets) ** 2))
    constant = bool(np.ptp(targets) <= 10 * np.finfo(float).eps * np.abs(targets).max())
    return {
        "r2": None if constant else 1 - squares / float(np.var(targets)),
        "rmse": target_scale * squares**0.5,
    }


def score_rows(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of the result as rows of a table."""
    return [
        {
            "samples": name,
            "R²": Quantity(told[f"{part}_r2"], 4),
            "root mean square error": Quantity(told[f"{part}_rmse"], 4),
        }
        for part, name in (("train", "training"), ("test", "test"))
    ]
