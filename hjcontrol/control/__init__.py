"""The statement: a control problem, its costs and sets, its Hamiltonian. No algorithms."""

from hjcontrol.control.control_sets import (
    AbstractControlSet,
    Binary,
    Box,
    ByLeaf,
    ByRun,
    Free,
    GroupBall,
    L1Ball,
    L2Ball,
    Nonnegative,
    Simplex,
    Ternary,
)
from hjcontrol.control.costs import (
    AbstractRunningCost,
    Ridge,
    StateCost,
    WeightCost,
    least_squares,
    softmax_cross_entropy,
)
from hjcontrol.control.derivatives import (
    backpropagate,
    curvature,
    gauss_newton_curvature,
    value_and_gradient,
)
from hjcontrol.control.hamiltonian import (
    costate,
    given_at,
    hamiltonian,
    inner,
    sample_hamiltonian,
    terminal_costate,
)
from hjcontrol.control.linear_quadratic import linear_quadratic
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.solution import History, Solution
from hjcontrol.control.trajectory import Trajectory

__all__ = [
    "AbstractControlSet",
    "AbstractRunningCost",
    "Binary",
    "Box",
    "ByLeaf",
    "ByRun",
    "ControlProblem",
    "Free",
    "GroupBall",
    "History",
    "L1Ball",
    "L2Ball",
    "Nonnegative",
    "Ridge",
    "Simplex",
    "Solution",
    "StateCost",
    "Ternary",
    "Trajectory",
    "WeightCost",
    "backpropagate",
    "costate",
    "curvature",
    "gauss_newton_curvature",
    "given_at",
    "hamiltonian",
    "inner",
    "least_squares",
    "linear_quadratic",
    "sample_hamiltonian",
    "softmax_cross_entropy",
    "terminal_costate",
    "value_and_gradient",
]
