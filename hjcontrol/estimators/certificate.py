"""What is proven of a fit: the value reached, the least value possible where known, the slope left."""

import dataclasses
import math

from hjcontrol._ground.record import Quantity, Record, Told, figure


@dataclasses.dataclass(frozen=True)
class FitCertificate(Told):
    """`objective` reached; `bound`: no weights reach less (NaN where nothing bounds it); `stationarity`:
    largest entry of the gradient at the end, in the units of training."""

    objective: float
    stationarity: float
    bound: float = math.nan
    problem: str = ""

    @property
    def gap(self) -> float:
        """How far the objective is from the least possible at most; NaN without a bound."""
        return self.objective - self.bound

    def as_record(self) -> Record:
        """What this result says of itself."""
        proven = not math.isnan(self.bound)
        return Record(
            f"Training objective {figure(self.objective, 6)}",
            f"within {max(self.gap, 0.0):.1e} of the least possible"
            if proven
            else "stationary as far as said; not convex, so no bound: another start may end lower",
            facts={"problem": self.problem, "stationarity": Quantity(self.stationarity, 2)}
            | ({"bound": Quantity(self.bound, 6)} if proven else {}),
        )
