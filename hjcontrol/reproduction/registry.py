"""The claims in the order of the theory: what the command, the page and the tests sweep.

A new claim: a file in `claims/` that ends in `CLAIM`, and its name here.
"""

import importlib

from hjcontrol._ground.arguments import admits
from hjcontrol.reproduction.claim import Claim

FILES = (
    "core_identity",
    "viscous_equation",
    "anisotropic",
    "tropical_bound",
    "semiring",
    "hopf_lax_formula",
    "relu",
    "activations",
    "silu",
    "gelu",
    "semigroup",
    "depth_error",
    "depth_is_time",
    "commuting_square",
    "vanishing_viscosity",
    "convex_duality",
    "thermodynamics",
    "attention",
    "attention_gradient",
    "residual_characteristics",
    "recurrent",
    "state_space",
    "costate",
    "maximum_principle",
    "backward_heat",
    "quadrature",
    "approximation",
    "generalisation",
    "optimal_temperature",
    "hessian_bound",
    "monotone_robustness",
    "scaling_quadrature",
    "scaling_trained",
    "effective_dimension",
    "intrinsic_dimension",
    "gap_criterion",
    "diffusion_radius",
    "near_shocks",
    "double_descent",
    "recovery",
    "training_search",
    "initial_data_legendre",
    "attribution",
    "entropy_gradient",
    "folds",
    "landscape_counts",
    "tree",
    "solitons",
    "continual",
    "design_principles",
)

CLAIMS: tuple[Claim, ...] = tuple(
    importlib.import_module(f"hjcontrol.reproduction.claims.{name}").CLAIM for name in FILES
)


@admits()
def by_id(name: str) -> Claim:
    """The claim of that id.

    **Raises:** `ValueError` for an unknown one, with the nearest.
    """
    import difflib

    known = {c.id: c for c in CLAIMS}
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.3)
        raise ValueError(
            f"claim {name!r} is unknown. "
            + (f"Near it: {', '.join(near)}." if near else f"There are: {', '.join(known)}.")
        )
    return known[name]
