"""Methods by name, as the command line and tables call them. The names alone cost nothing to import."""

from typing import Any

NAMES = ("gradient", "adam", "newton", "gauss-newton", "direct")


def by_name(name: str, **options: Any) -> Any:
    """The `AbstractMethod` called `name`, with its own keyword options.

    `gradient` is `optax.lbfgs()`, `adam` is `optax.adam(1e-2)`.

    **Raises:** `ValueError` for an unknown name.
    """
    if name in ("gradient", "adam"):
        import optax

        from hjcontrol.solvers.gradient import Gradient

        optimiser = optax.lbfgs() if name == "gradient" else optax.adam(1e-2)
        return Gradient(optimiser, label=name, **options)
    if name in ("newton", "gauss-newton"):
        from hjcontrol.solvers.newton import Newton

        return Newton(curvature="exact" if name == "newton" else "gauss_newton", **options)
    if name == "direct":
        from hjcontrol.solvers.direct import Direct

        return Direct(**options)
    raise ValueError(f"unknown solver {name!r}; the solvers are {', '.join(NAMES)}.")
