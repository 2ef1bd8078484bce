"""Composition: depth is time. Stages, chains of them, and the layers to build them from."""

from hjcontrol.networks.chain import Chain, Run, Weights
from hjcontrol.networks.dense import AffineWeights, Dense, identity, lift, readout
from hjcontrol.networks.flow import Flow
from hjcontrol.networks.residual import Residual
from hjcontrol.networks.stage import AbstractStage, FunctionStage, ModuleStage, Symmetry, as_stage

__all__ = [
    "AbstractStage",
    "AffineWeights",
    "Chain",
    "Dense",
    "Flow",
    "FunctionStage",
    "ModuleStage",
    "Residual",
    "Run",
    "Symmetry",
    "Weights",
    "as_stage",
    "identity",
    "lift",
    "readout",
]
