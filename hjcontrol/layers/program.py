r"""What a convex program owes to a certificate.

    minimise  objective(x)   subject to   x feasible           (P)
    maximise  dual_objective(y)   subject to   y feasible      (D),   dual_objective <= objective

`x` candidate, any pytree of arrays; `y` multipliers, any pytree. A program measures how far the pair
is from optimal, coordinate by coordinate; `certify` judges. A maximisation is stated with its sign
turned, so that every program here is a minimisation.
"""

import abc
from typing import Any

from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.shown import Shown


class Residuals(Shown):
    """How far one pair (candidate, multipliers) is from optimal. All entries >= 0, 0 when met.

    `primal`, `dual`, `complementarity` and `stationarity` are pytrees of arrays, one entry a
    constraint or coordinate. `objective - dual_objective` is the gap, an upper bound on the
    suboptimality of the candidate wherever both are feasible.

    A program that measures in no unit says in `size` what its gap is measured in (without it, the
    larger of 1 and the objectives), and in `floor` what roundoff in its data can make of a residual.
    """

    primal: PyTree[Float[Array, "..."]]
    dual: PyTree[Float[Array, "..."]]
    complementarity: PyTree[Float[Array, "..."]]
    stationarity: PyTree[Float[Array, "..."]]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    size: Float[Array, ""] | None = None
    floor: Float[Array, ""] | None = None


class AbstractProgram(Shown):
    """A convex program of one sample, in pure JAX: batch with `jax.vmap`."""

    @abc.abstractmethod
    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of the pair. `dual=None` takes the best multipliers that the candidate implies.

        **Raises:** `ValueError` for a candidate or multipliers of the wrong shape.
        """
