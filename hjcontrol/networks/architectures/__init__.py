"""Architectures with what they declare: stages, Hamiltonian, viscosity, what of that is exact."""

from hjcontrol.networks.architectures.declaration import AbstractArchitecture, Read
from hjcontrol.networks.architectures.registry import ARCHITECTURES, architecture

__all__ = ["ARCHITECTURES", "AbstractArchitecture", "Read", "architecture"]
