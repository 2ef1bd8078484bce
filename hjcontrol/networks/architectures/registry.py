"""The architectures, by name: what tests sweep, what `hjcontrol architectures` and the docs print.

A new architecture: a final subclass of `AbstractArchitecture` with `in_size` and `classes` first and a
default for all the rest, an entry here. The tests then hold it to every law: its costate by independent
routes at random weights and after training, p.dx conserved, its declarations complete, its docs current.
"""

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.architectures.declaration import AbstractArchitecture
from hjcontrol.networks.architectures.feedforward import Feedforward, ResidualNetwork
from hjcontrol.networks.architectures.flow import FlowNetwork, StochasticResidualNetwork
from hjcontrol.networks.architectures.recurrent import (
    GRUNetwork,
    LSTMNetwork,
    RNNNetwork,
    SemiringNetwork,
    SSMNetwork,
)
from hjcontrol.networks.architectures.transformer import Transformer

ARCHITECTURES: dict[str, type[AbstractArchitecture]] = {
    kind.name: kind
    for kind in (
        Feedforward,
        ResidualNetwork,
        StochasticResidualNetwork,
        FlowNetwork,
        Transformer,
        RNNNetwork,
        GRUNetwork,
        LSTMNetwork,
        SSMNetwork,
        SemiringNetwork,
    )
}
HEADINGS = ("name", "drift b", "H", "viscosity", "exact", "only structural")


@admits(in_size=">= 1", classes=">= 1")
def architecture(name: str, in_size: int, classes: int, **options) -> AbstractArchitecture:
    """The architecture of that name, small by default; `options` are its own fields.

    **Raises:** `ValueError` for a name that is not registered.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"architectures are {', '.join(ARCHITECTURES)}; found {name!r}.")
    return ARCHITECTURES[name](in_size, classes, **options)


def table() -> list[tuple[str, ...]]:
    """One row an architecture, columns as in `HEADINGS`."""
    return [
        (kind.name, kind.drift, kind.energy, kind.noise, kind.exact, kind.structural)
        for kind in ARCHITECTURES.values()
    ]
