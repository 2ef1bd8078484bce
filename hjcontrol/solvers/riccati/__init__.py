"""Riccati: linear-quadratic sweeps, and the Gauss-Newton and DDP methods that are made of them."""

from hjcontrol.solvers.riccati.associative import parallel
from hjcontrol.solvers.riccati.lqr import LQR, Policy, Stage, sequential, simulate
from hjcontrol.solvers.riccati.method import Riccati

__all__ = ["LQR", "Policy", "Riccati", "Stage", "parallel", "sequential", "simulate"]
