"""The statement: a control problem, its costs and sets, its Hamiltonian. No algorithms."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.control.batches import Minibatch, minibatch
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
from hjcontrol.control.feedback import Feedback
from hjcontrol.control.guess import Guess
from hjcontrol.control.hamiltonians import (
    costate,
    hamiltonian,
    sample_hamiltonian,
    terminal_costate,
)
from hjcontrol.control.path_constraints import Budget, PathConstraint, StateBall, StateBox
from hjcontrol.control.pricing import augmented, lagrangian
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.product_sets import ByLeaf, ByRun
from hjcontrol.control.quadratic_problem import linear_quadratic
from hjcontrol.control.rounding import Rounding, rounded
from hjcontrol.control.solution import History, Solution, Theorem
from hjcontrol.control.terminal_constraint import TerminalConstraint
from hjcontrol.control.trajectory import Trajectory

__all__ = [
    "AbstractControlSet",
    "AbstractRunningCost",
    "Binary",
    "Box",
    "Budget",
    "ByLeaf",
    "ByRun",
    "ControlProblem",
    "Feedback",
    "Free",
    "GroupBall",
    "Guess",
    "History",
    "L1Ball",
    "L2Ball",
    "Minibatch",
    "Nonnegative",
    "PathConstraint",
    "Ridge",
    "Rounding",
    "Simplex",
    "Smoothing",
    "Solution",
    "StateBall",
    "StateBox",
    "StateCost",
    "TerminalConstraint",
    "Ternary",
    "Theorem",
    "Trajectory",
    "WeightCost",
    "augmented",
    "backpropagate",
    "costate",
    "curvature",
    "gauss_newton_curvature",
    "hamiltonian",
    "lagrangian",
    "least_squares",
    "linear_quadratic",
    "minibatch",
    "rounded",
    "sample_hamiltonian",
    "softmax_cross_entropy",
    "terminal_costate",
    "value_and_gradient",
]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {
        "check_batch_size": ".batches:check_batch_size",
        "given_at": ".hamiltonians:given_at",
        "inner": ".hamiltonians:inner",
    }
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)
