r"""A path of problems, from one that is easy to the one that is to be solved.

    P(eps),   0 <= eps <= 1,      P(1) = the problem       each level starts from the last one's answer

eps      0 first, then raised by `rise`; doubled after a level that is met, halved after one that is not
default  Phi weighed by eps: without a terminal cost the costate is known
yours    `homotopy(problem, eps)`, any function that gives a `ControlProblem` of the same shapes: a
         temperature, a ridge, a length of time. eps is traced: all levels are one compiled program
Limits   the path is followed in eps, not in arc length: it stops where extremals fold back

E. L. Allgower and K. Georg, Introduction to Numerical Continuation Methods (2003).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem

Deformation = Callable[[ControlProblem, Float[Array, ""]], ControlProblem]

FIRST = 0.25  # first rise of eps
CLOSEST = 1e-4  # smallest rise of eps that is tried
PATIENCE = 25  # Newton steps that one level may take
LEVELS = 256  # levels that are reported
COLUMNS = ("eps", "objective", "residual", "newton_steps")


class _Weighed(eqx.Module):
    terminal: Callable[..., Float[Array, ""]]
    eps: Float[Array, ""]

    def __call__(self, *of: Any) -> Float[Array, ""]:
        paid = self.terminal(*of)
        return self.eps.astype(paid.dtype) * paid


def terminal_weight(problem: ControlProblem, eps: Float[Array, ""]) -> ControlProblem:
    """The problem with `eps * Phi` in place of `Phi`."""
    return eqx.tree_at(lambda p: p.terminal, problem, _Weighed(problem.terminal, eps))


class Level(Shown):
    """Where the path is: `eps`, the `rise` that led there, the Newton `steps` taken there, the last level
    that was `met` (-1: none); and the `rows` of those that were, `count` of them."""

    eps: Float[Array, ""]
    rise: Float[Array, ""]
    steps: Int[Array, ""]
    met: Float[Array, ""]
    rows: Float[Array, "levels columns"]
    count: Int[Array, ""]


def first_level(eps: float, dtype: Any) -> Level:
    """The start of a path; at `eps = 1` there is none to follow."""
    number, none = lambda v: jnp.asarray(v, dtype), jnp.asarray(0)
    rows = jnp.full((LEVELS, len(COLUMNS)), jnp.nan, dtype)
    return Level(number(eps), number(FIRST), none, number(-1.0), rows, none)


def next_level(
    level: Level, residual: Array, objective: Array, met: Array, falls: Array
) -> tuple[Level, Bool[Array, ""], Bool[Array, ""]]:
    """After a Newton step: the level to be at; whether it is another one, to be started from the last
    that was met; and whether the path ends here, short of its end."""
    row = jnp.stack([level.eps, objective, residual, level.steps + 1.0]).astype(level.rows.dtype)
    rows = level.rows.at[level.count].set(jnp.where(met, row, jnp.nan), mode="drop")
    stuck = ~met & (~falls | (level.steps + 1 >= PATIENCE))
    rise = jnp.where(met, jnp.minimum(2 * level.rise, 1.0), level.rise)
    rise = jnp.where(stuck, 0.5 * rise, rise)
    base = jnp.where(met, level.eps, level.met)
    leaves = met | stuck
    ended = stuck & ((rise < CLOSEST) | (base < 0))
    eps = jnp.where(leaves & (base >= 0), jnp.minimum(base + rise, 1.0), level.eps)
    steps = jnp.where(leaves, 0, level.steps + 1)
    return Level(eps, rise, steps, base, rows, level.count + met), leaves, ended


def reported(level: Level) -> list[dict[str, float]]:
    """The levels met, in order: `eps`, the objective of that level's problem, the largest coordinate of
    the residual, and the Newton steps it took."""
    rows = np.asarray(level.rows)[: int(level.count)].tolist()
    found = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    return [row | {"newton_steps": int(row["newton_steps"])} for row in found]


def checked(problem: ControlProblem, deform: Deformation) -> None:
    """Refuse a path that does not end at the problem, or whose problems are of other shapes.

    **Raises:** `ValueError`, with what was found.
    """
    end = deform(problem, jnp.asarray(1.0, problem.dtype))
    if not isinstance(end, ControlProblem):
        raise ValueError(
            "shooting: `homotopy(problem, eps)` must give a ControlProblem; found "
            f"{type(end).__name__}."
        )
    key = jax.random.key(0)
    shapes = lambda p: jax.tree.map(lambda a: a.shape, jax.eval_shape(p.init, key))
    if (shapes(end), end.inputs.shape) != (shapes(problem), problem.inputs.shape):
        raise ValueError(
            "shooting: all problems of a `homotopy` must have weights and inputs of the same shapes; "
            f"found {shapes(end)} at eps = 1, and {shapes(problem)} in the problem."
        )
    if eqx.tree_equal(end, problem):
        return
    weights = problem.init(key)
    value = eqx.filter_jit(lambda p: p.objective(weights))
    found, wanted = float(value(end)), float(value(problem))
    if not np.isclose(found, wanted, rtol=1e-6):
        raise ValueError(
            "shooting: `homotopy(problem, 1)` must be the problem itself; at one set of weights its "
            f"objective is {found:.9g}, and the problem's {wanted:.9g}."
        )
