r"""What a convex program owes to a certificate.

    minimise  objective(x)   subject to   x feasible           (P)
    maximise  dual_objective(y)   subject to   y feasible      (D),   dual_objective <= objective

`x` candidate, any pytree of arrays; `y` multipliers, any pytree. A program measures how far the pair
is from optimal, coordinate by coordinate; `certify` judges. A maximisation is stated with its sign
turned, so that every program here is a minimisation.
"""

import abc
from typing import Any

from jaxtyping import Array, Bool, Float, PyTree

from hjcontrol._ground.shown import Shown


class Scales(Shown):
    """The units of `Residuals`, part by part: what the data at hand call large.

    A residual over its unit is a measure without units: the same if the objective, the variables or a
    common offset of the logits are stated otherwise. Scales come from the data alone, never from the
    candidate. `None`: a part that is in no unit already. `undecidable`: the data are rounded more
    coarsely than what would decide; `floor`: what roundoff in the data can make of a measure, where it
    depends on the tolerance whether that decides.
    """

    excess: PyTree[Float[Array, "..."]]
    primal: PyTree[Float[Array, "..."]] | None = None
    dual: PyTree[Float[Array, "..."]] | None = None
    complementarity: PyTree[Float[Array, "..."]] | None = None
    stationarity: PyTree[Float[Array, "..."]] | None = None
    undecidable: Bool[Array, "..."] | None = None
    floor: Float[Array, ""] | None = None


class Residuals(Shown):
    """How far one pair (candidate, multipliers) is from optimal. All entries >= 0, 0 when met.

    `primal`, `dual`, `complementarity` and `stationarity` are pytrees of arrays, one entry a
    constraint or coordinate. `objective - dual_objective` is the gap, an upper bound on the
    suboptimality of the candidate wherever both are feasible. `excess` is that gap in terms that do not
    cancel, Fenchel and Young's, one a coordinate; `scales` the units of everything. Without `scales`
    residuals are held to the tolerance as they are, the gap to that of `max(1, |objective|)`.
    """

    primal: PyTree[Float[Array, "..."]]
    dual: PyTree[Float[Array, "..."]]
    complementarity: PyTree[Float[Array, "..."]]
    stationarity: PyTree[Float[Array, "..."]]
    objective: Float[Array, ""]
    dual_objective: Float[Array, ""]
    excess: PyTree[Float[Array, "..."]] | None = None
    scales: Scales | None = None


class AbstractProgram(Shown):
    """A convex program of one sample, in pure JAX: batch with `jax.vmap`."""

    @abc.abstractmethod
    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of the pair. `dual=None` takes the best multipliers that the candidate implies.

        **Raises:** `ValueError` for a candidate or multipliers of the wrong shape.
        """
