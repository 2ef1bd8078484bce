# Written by .ci/stubs.py from the tables in __init__.py. Do not edit by hand.

from hjcontrol import analysis as analysis
from hjcontrol import comparison as comparison
from hjcontrol import control as control
from hjcontrol import data as data
from hjcontrol import deformation as deformation
from hjcontrol import estimators as estimators
from hjcontrol import hamilton_jacobi as hamilton_jacobi
from hjcontrol import layers as layers
from hjcontrol import networks as networks
from hjcontrol import reporting as reporting
from hjcontrol import solvers as solvers
from hjcontrol import testing as testing
from hjcontrol import verification as verification
from hjcontrol._ground.results import RESULTS as RESULTS
from hjcontrol.comparison import Comparison as Comparison
from hjcontrol.comparison import crosscheck as crosscheck
from hjcontrol.control import Box as Box
from hjcontrol.control import ControlProblem as ControlProblem
from hjcontrol.control import Ridge as Ridge
from hjcontrol.control import Smoothing as Smoothing
from hjcontrol.control import Solution as Solution
from hjcontrol.control import least_squares as least_squares
from hjcontrol.control import softmax_cross_entropy as softmax_cross_entropy
from hjcontrol.data import load as load
from hjcontrol.data import split as split
from hjcontrol.layers import ClassHead as ClassHead
from hjcontrol.layers import LSE as LSE
from hjcontrol.layers import Optimality as Optimality
from hjcontrol.layers import ProgramLayer as ProgramLayer
from hjcontrol.layers import SoftThreshold as SoftThreshold
from hjcontrol.layers import Softmax as Softmax
from hjcontrol.layers import Sparsemax as Sparsemax
from hjcontrol.layers import certify as certify
from hjcontrol.layers import compare_gradients as compare_gradients
from hjcontrol.layers import faces as faces
from hjcontrol.networks import Dense as Dense
from hjcontrol.networks import Flow as Flow
from hjcontrol.networks import Residual as Residual
from hjcontrol.networks import Tied as Tied
from hjcontrol.networks import lift as lift
from hjcontrol.networks import readout as readout
from hjcontrol.reporting import plots as plots
from hjcontrol.reporting import report as report
from hjcontrol.solvers import Direct as Direct
from hjcontrol.solvers import Gradient as Gradient
from hjcontrol.solvers import MSA as MSA
from hjcontrol.solvers import Newton as Newton
from hjcontrol.solvers import Riccati as Riccati
from hjcontrol.solvers import Shooting as Shooting
from hjcontrol.solvers import convex as convex
from hjcontrol.solvers import select as select
from hjcontrol.solvers import solve as solve
from hjcontrol.solvers import sweep as sweep
from hjcontrol.verification import Certificate as Certificate
from hjcontrol.verification import VerificationError as VerificationError
from hjcontrol.verification import deliberate as deliberate
from hjcontrol.verification import verify as verify
from hjcontrol.verification.ladder import adjoint_ladder as adjoint_ladder
from hjcontrol.verification.torch_witness import verify_torch as verify_torch

__all__ = [
    "Box",
    "Certificate",
    "ClassHead",
    "Comparison",
    "ControlProblem",
    "Dense",
    "Direct",
    "Flow",
    "Gradient",
    "LSE",
    "MSA",
    "Newton",
    "Optimality",
    "ProgramLayer",
    "RESULTS",
    "Residual",
    "Riccati",
    "Ridge",
    "Shooting",
    "Smoothing",
    "SoftThreshold",
    "Softmax",
    "Solution",
    "Sparsemax",
    "Tied",
    "VerificationError",
    "__version__",
    "adjoint_ladder",
    "analysis",
    "certify",
    "compare_gradients",
    "comparison",
    "control",
    "convex",
    "crosscheck",
    "data",
    "deformation",
    "deliberate",
    "estimators",
    "faces",
    "hamilton_jacobi",
    "layers",
    "least_squares",
    "lift",
    "load",
    "networks",
    "plots",
    "readout",
    "report",
    "reporting",
    "select",
    "softmax_cross_entropy",
    "solve",
    "solvers",
    "split",
    "sweep",
    "testing",
    "verification",
    "verify",
    "verify_torch",
]
__version__: str
