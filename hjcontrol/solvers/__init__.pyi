# Written by .ci/stubs.py from the tables in __init__.py. Do not edit by hand.

from hjcontrol.solvers import convex as convex
from hjcontrol.solvers.augmented_lagrangian import AugmentedLagrangian as AugmentedLagrangian
from hjcontrol.solvers.checkpoint import Checkpoint as Checkpoint
from hjcontrol.solvers.direct import Direct as Direct
from hjcontrol.solvers.direct import as_nlp as as_nlp
from hjcontrol.solvers.direct import loadable_backends as loadable_backends
from hjcontrol.solvers.driver import solve as solve
from hjcontrol.solvers.gradient import Gradient as Gradient
from hjcontrol.solvers.msa import DiscreteMSA as DiscreteMSA
from hjcontrol.solvers.msa import ExtendedMSA as ExtendedMSA
from hjcontrol.solvers.msa import MSA as MSA
from hjcontrol.solvers.names import NAMES as NAMES
from hjcontrol.solvers.names import by_name as by_name
from hjcontrol.solvers.newton import Newton as Newton
from hjcontrol.solvers.riccati import Riccati as Riccati
from hjcontrol.solvers.running import Ended as Ended
from hjcontrol.solvers.running import run as run
from hjcontrol.solvers.selection import capabilities as capabilities
from hjcontrol.solvers.selection import capability_table as capability_table
from hjcontrol.solvers.selection import select as select
from hjcontrol.solvers.shooting import Shooting as Shooting
from hjcontrol.solvers.solver import AbstractSolver as AbstractSolver
from hjcontrol.solvers.sweeping import Sweep as Sweep
from hjcontrol.solvers.sweeping import sweep as sweep

__all__ = [
    "AbstractSolver",
    "AugmentedLagrangian",
    "Checkpoint",
    "Direct",
    "DiscreteMSA",
    "Ended",
    "ExtendedMSA",
    "Gradient",
    "MSA",
    "NAMES",
    "Newton",
    "Riccati",
    "Shooting",
    "Sweep",
    "as_nlp",
    "by_name",
    "capabilities",
    "capability_table",
    "convex",
    "loadable_backends",
    "run",
    "select",
    "solve",
    "sweep",
]
