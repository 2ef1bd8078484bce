"""Successive approximations: states forward, costates backward, the Hamiltonian minimised stage by stage.

theta_k <- argmin over Theta of H_k(x_k, p_{k+1}, theta)        all stages at once

MSA           as it stands: fixed points are stationary, but it may diverge, and says so
ExtendedMSA   with a price on leaving the states and costates: descends by construction
DiscreteMSA   over two or three values a weight
"""

from hjcontrol.solvers.msa.discrete import DiscreteMSA
from hjcontrol.solvers.msa.extended import ExtendedMSA
from hjcontrol.solvers.msa.plain import MSA

__all__ = ["MSA", "DiscreteMSA", "ExtendedMSA"]
