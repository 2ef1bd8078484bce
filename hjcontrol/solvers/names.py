"""Methods by name, as the command line and tables call them. The names alone cost nothing to import."""

from typing import Any

NAMES = (
    "gradient",
    "adam",
    "newton",
    "gauss-newton",
    "riccati",
    "ddp",
    "msa",
    "emsa",
    "discrete-msa",
    "shooting",
    "direct",
    "augmented-newton",
)


def by_name(name: str, **options: Any) -> Any:
    """The `AbstractSolver` called `name`, with its own keyword options.

    `gradient` is `optax.lbfgs()`, `adam` is `optax.adam(1e-2)`; `ilqr` is another name of `riccati`;
    `augmented-newton` is `AugmentedLagrangian(Newton())`.

    **Raises:** `ValueError` for an unknown name.
    """
    if not isinstance(name, str):
        raise ValueError(f"by_name: `name` must be one of {', '.join(NAMES)}; found {name!r}.")
    if name in ("gradient", "adam"):
        import optax

        from hjcontrol.solvers.gradient import Gradient

        optimiser = optax.lbfgs() if name == "gradient" else optax.adam(1e-2)
        return Gradient(optimiser, label=name, **options)
    if name in ("newton", "gauss-newton"):
        from hjcontrol.solvers.newton import Newton

        return Newton(curvature="exact" if name == "newton" else "gauss_newton", **options)
    if name == "augmented-newton":
        from hjcontrol.solvers.augmented_lagrangian import AugmentedLagrangian
        from hjcontrol.solvers.newton import Newton

        return AugmentedLagrangian(Newton(), **options)
    if name == "direct":
        from hjcontrol.solvers.direct import Direct

        return Direct(**options)
    if name in ("riccati", "ilqr", "ddp"):
        from hjcontrol.solvers.riccati import Riccati

        return Riccati(curvature="ddp" if name == "ddp" else "gauss_newton", **options)
    if name in ("msa", "emsa", "discrete-msa"):
        from hjcontrol.solvers import msa

        return {"msa": msa.MSA, "emsa": msa.ExtendedMSA, "discrete-msa": msa.DiscreteMSA}[name](
            **options
        )
    if name == "shooting":
        from hjcontrol.solvers.shooting import Shooting

        return Shooting(**options)
    if name == "auto":
        raise ValueError(
            "'auto' chooses among methods by a problem, in `hj.solve`; `hj.select(problem)` names the "
            "one that it would take. Name a solver here."
        )
    raise ValueError(
        f"unknown solver {name!r}; the solvers are {', '.join(NAMES)}. Any optimiser of optax becomes "
        "one by `hj.Gradient(optimiser)`."
    )
