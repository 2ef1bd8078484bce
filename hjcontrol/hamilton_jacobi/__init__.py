"""The viscous Hamilton-Jacobi equation whose solution a layer is: `u_t + H(grad u) = eps lap u`."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.hamilton_jacobi.combined import Scaled, Sum
from hjcontrol.hamilton_jacobi.dictionary import data_of_layer, layer_of_data, plane_waves
from hjcontrol.hamilton_jacobi.grid import Grid
from hjcontrol.hamilton_jacobi.grid_planning import GridPlan, GridScheme, grid_plan
from hjcontrol.hamilton_jacobi.grid_solver import GridSolution, grid_solve
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian
from hjcontrol.hamilton_jacobi.hopf_cole_formula import hopf_cole, hopf_cole_batch, hopf_cole_smooth
from hjcontrol.hamilton_jacobi.hopf_formula import hopf, hopf_sampled, hopf_search
from hjcontrol.hamilton_jacobi.hopf_lax_formula import (
    Searched,
    hopf_lax,
    hopf_lax_convex,
    hopf_lax_search,
)
from hjcontrol.hamilton_jacobi.initial_data import Envelope, InitialData, density, envelope, merge
from hjcontrol.hamilton_jacobi.max_affine import Bracket, MaxAffine, as_cvxpy, hopf_lax_max_affine
from hjcontrol.hamilton_jacobi.normalisation import normaliser
from hjcontrol.hamilton_jacobi.pairs import (
    Anisotropic,
    BoxIndicator,
    Drift,
    HalfQuadratic,
    Norm,
    Power,
    Quadratic,
    Relativistic,
)
from hjcontrol.hamilton_jacobi.prox_mc import HJProx, hj_prox, prox_max_affine
from hjcontrol.hamilton_jacobi.recovery import Recovered, c_transform, recover
from hjcontrol.hamilton_jacobi.residual import EquationResidual, pde_residual
from hjcontrol.hamilton_jacobi.semigroup import evolve, kernel, log_product
from hjcontrol.hamilton_jacobi.transforms import (
    Minimum,
    biconjugate,
    conjugate,
    infimal_convolution,
    legendre,
    moreau,
    prox,
    prox_separable,
)
from hjcontrol.hamilton_jacobi.user_hamiltonian import Conjugate, Nonconvex, UserConvex

__all__ = [
    "AbstractHamiltonian",
    "Anisotropic",
    "BoxIndicator",
    "Bracket",
    "Conjugate",
    "Drift",
    "Envelope",
    "EquationResidual",
    "Grid",
    "GridPlan",
    "GridScheme",
    "GridSolution",
    "HJProx",
    "HalfQuadratic",
    "InitialData",
    "MaxAffine",
    "Minimum",
    "Nonconvex",
    "Norm",
    "Power",
    "Quadratic",
    "Recovered",
    "Relativistic",
    "Scaled",
    "Searched",
    "Sum",
    "UserConvex",
    "as_cvxpy",
    "biconjugate",
    "c_transform",
    "conjugate",
    "data_of_layer",
    "density",
    "envelope",
    "evolve",
    "grid_plan",
    "grid_solve",
    "hj_prox",
    "hopf",
    "hopf_cole",
    "hopf_cole_batch",
    "hopf_cole_smooth",
    "hopf_lax",
    "hopf_lax_convex",
    "hopf_lax_max_affine",
    "hopf_lax_search",
    "hopf_sampled",
    "hopf_search",
    "infimal_convolution",
    "kernel",
    "layer_of_data",
    "legendre",
    "log_product",
    "merge",
    "moreau",
    "normaliser",
    "pde_residual",
    "plane_waves",
    "prox",
    "prox_max_affine",
    "prox_separable",
    "recover",
]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {
        "GRID_RESULTS": "hjcontrol._ground.results:RESULTS",
        "Layer": "hjcontrol.deformation:LSE",
        "Residual": ":EquationResidual",
        "SEARCH": "hjcontrol._ground.results:RESULTS",
    }
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)
