"""Settings of `fit-convex`: those that commands share, and its own. Checked before anything heavy."""

import difflib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.settings import Settings, settings

MODELS = ("logistic", "hopf-cole", "convex-regression", "gated-relu", "dc")


class Asked(NamedTuple):
    """What `fit-convex` is to do; `None` where the model's own default holds."""

    model: str
    common: Settings
    ridge: float | None
    eps: float | None
    atoms: int


def fit_settings(
    model: str | None, given: Mapping[str, Any], eps: str | None, atoms: str | None
) -> Asked:
    """Settings from the options as they were typed, `None` where absent.

    **Raises:** `CommandError` naming the option, what it takes and what came.
    """
    chosen = _model(model)
    default = {"data": "digits" if chosen == "logistic" else "diabetes", "out": "fit-convex"}
    known = settings(default | {key: v for key, v in given.items() if v is not None})
    return Asked(
        chosen,
        known,
        None if given.get("ridge") is None else known.ridge,
        None if eps is None else _temperature(eps, chosen),
        50 if atoms is None else _count("--atoms", atoms),
    )


def _model(name: str | None) -> str:
    if name is None:
        return MODELS[0]
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise CommandError(
            f"--model: unknown model {name!r}; the models are {', '.join(MODELS)}.{hint}"
        )
    return name


def _temperature(text: str, model: str) -> float:
    """`--eps`; 0 is max-affine layers, which `dc` alone fits (`convex-regression` always does)."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and (value > 0 or (value == 0 and model == "dc"))):
        least = ">= 0" if model == "dc" else "> 0"
        raise CommandError(f"--eps: a number {least} is needed by {model}; found {text}.")
    return value


def _count(name: str, text: str) -> int:
    if not (text.strip().isdecimal() and 1 <= int(text) < 2**20):
        raise CommandError(f"{name}: a whole number >= 1 is needed; found {text}.")
    return int(text)
