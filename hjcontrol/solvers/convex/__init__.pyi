# Written by .ci/stubs.py from the tables in __init__.py. Do not edit by hand.

from hjcontrol.solvers.convex.column_generation import PricedAtoms as PricedAtoms
from hjcontrol.solvers.convex.column_generation import fit_lse as fit_lse
from hjcontrol.solvers.convex.convex_regression import ConvexRegression as ConvexRegression
from hjcontrol.solvers.convex.difference import Difference as Difference
from hjcontrol.solvers.convex.difference import DifferenceOfConvex as DifferenceOfConvex
from hjcontrol.solvers.convex.gated_relu import GatedReLU as GatedReLU
from hjcontrol.solvers.convex.gated_relu import sample_gates as sample_gates
from hjcontrol.solvers.convex.hopf_cole import HopfCole as HopfCole
from hjcontrol.solvers.convex.joint_fit import JointFit as JointFit
from hjcontrol.solvers.convex.joint_fit import fit_jointly as fit_jointly
from hjcontrol.solvers.convex.logistic import SoftmaxReadout as SoftmaxReadout
from hjcontrol.solvers.convex.max_affine_difference import DifferenceOfMaxAffine as DifferenceOfMaxAffine
from hjcontrol.solvers.convex.polishing import polish as polish
from hjcontrol.solvers.convex.pricing import Ball as Ball
from hjcontrol.solvers.convex.problem import AbstractConvexProblem as AbstractConvexProblem
from hjcontrol.solvers.convex.problem import PrimalDual as PrimalDual

__all__ = [
    "AbstractConvexProblem",
    "Ball",
    "ConvexRegression",
    "Difference",
    "DifferenceOfConvex",
    "DifferenceOfMaxAffine",
    "GatedReLU",
    "HopfCole",
    "JointFit",
    "PricedAtoms",
    "PrimalDual",
    "SoftmaxReadout",
    "fit_jointly",
    "fit_lse",
    "polish",
    "sample_gates",
]
