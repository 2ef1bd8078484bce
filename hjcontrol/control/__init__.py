"""The statement: a control problem, its costs and sets, its Hamiltonian. No algorithms."""

from hjcontrol.control.batches import Minibatch, check_batch_size, minibatch
from hjcontrol.control.control_sets import (
    AbstractControlSet,
    Binary,
    Box,
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
    Smoothing,
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
from hjcontrol.control.product_sets import ByLeaf, ByRun
from hjcontrol.control.rounding import Rounding, rounded
from hjcontrol.control.solution import History, Solution, Theorem
from hjcontrol.control.terminal_constraint import TerminalConstraint, augmented
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
    "Minibatch",
    "Nonnegative",
    "Ridge",
    "Rounding",
    "Simplex",
    "Smoothing",
    "Solution",
    "StateCost",
    "TerminalConstraint",
    "Ternary",
    "Theorem",
    "Trajectory",
    "WeightCost",
    "augmented",
    "backpropagate",
    "check_batch_size",
    "costate",
    "curvature",
    "gauss_newton_curvature",
    "given_at",
    "hamiltonian",
    "inner",
    "least_squares",
    "linear_quadratic",
    "minibatch",
    "rounded",
    "sample_hamiltonian",
    "softmax_cross_entropy",
    "terminal_costate",
    "value_and_gradient",
]
