r"""How many steps: the stability condition, computed from the data before anything runs.

    courant = dt * sum_i max |dH/dp_i| / h_i  <=  limit        limit = 1 (`first`),  3/4 (`weno5`)

The maximum is over the box of all slopes of the data. Slopes do not grow: a monotone scheme that commutes
with shifts keeps each one-sided slope between the least and the greatest of the data, so the number of
steps found for the data is good until the end. The slopes are measured again in every step all the same.

The viscous part sets no limit: it is advanced by the exponential of the discrete Laplacian, exactly in
time (`grid_solver.py`).
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol._ground.shown import Shown
from hjcontrol.hamilton_jacobi.grid import Grid
from hjcontrol.hamilton_jacobi.grid_differences import ORDERS, slopes
from hjcontrol.hamilton_jacobi.grid_flux import (
    FLUXES,
    admits_upwind,
    box_of_slopes,
    momenta,
    refined_speeds,
)


@admits(fraction="> 0")
class GridScheme(Shown):
    """Which slopes (`order`), which numerical Hamiltonian (`flux`), which part of the limit to use.

    `first` with flux `global` (any H) or `upwind` is monotone: it converges to the viscosity solution, at
    order one away from kinks. `weno5` is of third order in time and fifth in space where it is smooth.
    """

    order: str = eqx.field(static=True, default="weno5")
    flux: str = eqx.field(static=True, default="local")
    fraction: float = eqx.field(static=True, default=0.9)

    def __check_init__(self):
        if self.order not in ORDERS or self.flux not in FLUXES:
            raise ValueError(
                f"GridScheme: order is one of {', '.join(ORDERS)} and flux one of "
                f"{', '.join(FLUXES)}; found {self.order!r} and {self.flux!r}."
            )
        if not 0 < self.fraction <= 1:
            raise ValueError(f"GridScheme: 0 < fraction <= 1 is needed; found {self.fraction}.")

    @property
    def limit(self) -> float:
        """Greatest stable Courant number: one for Euler's step, 3/4 for the three-stage method."""
        return 1.0 if self.order == "first" else 0.75


class GridPlan(Shown):
    """`steps` of length `dt`, and why: slopes of the data, speeds, Courant number and its limit."""

    steps: int = eqx.field(static=True)
    dt: float
    courant: float
    limit: float
    slopes: tuple[tuple[float, float], ...]
    speeds: tuple[float, ...]

    @property
    def least_steps(self) -> int:
        """The fewest steps that the limit allows."""
        return max(1, math.ceil(self.courant * self.steps / self.limit * (1 - 1e-12)))


@admits(t="> 0", eps=">= 0", steps=">= 0", max_steps=">= 0")
def grid_plan(
    g: Float[Array, "*shape"],
    t: Float[ArrayLike, ""] | float | int,
    H: Callable[[Array], Array],
    eps: Float[ArrayLike, ""] | float | int,
    grid: Grid,
    *,
    scheme: GridScheme | None = None,
    steps: int | None = None,
    max_steps: int = 100_000,
) -> GridPlan:
    """The number of steps that initial data `g`, `H` and the grid need until time `t`.

    **Arguments:** as for [`grid_solve`][hjcontrol.hamilton_jacobi.grid_solve]; all values known
    (outside `jit` and `grad`). `steps`: asked for instead of computed.

    **Raises:** `ValueError` for values that are no initial-value problem, for `steps` that are too
    few, and where no number of steps up to `max_steps` is enough.
    """
    scheme = GridScheme() if scheme is None else scheme
    check_problem(g, t, H, eps, grid)
    if any(
        known(leaf) is None for leaf in jax.tree.leaves(eqx.filter((g, t, H, eps), eqx.is_array))
    ):
        raise ValueError(
            "grid_plan: the number of steps is computed from the data, which are not known while "
            "they are traced (jit, grad, vmap). Call `grid_plan` outside and pass "
            "`steps=plan.steps` to `grid_solve`."
        )
    left, right = _slopes(g, grid, scheme.order)
    low, high = _box(left, right)
    _check_hamiltonian(H, low, high, scheme.flux)
    found = [float(a) for a in _speeds(H, left, right)]
    rate = sum(a / h for a, h in zip(found, grid.spacing, strict=True))
    end = float(np.asarray(t))
    needed = max(1.0, end * rate / (scheme.limit * scheme.fraction))
    if not needed <= max_steps:
        raise ValueError(
            f"grid_plan: {needed:.4g} steps are needed to t = {end:g} (speeds {_shown(found)} on "
            f"spacings {_shown(grid.spacing)}), more than max_steps = {max_steps}. Use a coarser "
            "grid, a shorter time or data with smaller slopes, or raise max_steps."
        )
    count = math.ceil(needed) if steps is None else steps
    if count < 1:
        raise ValueError(f"grid_plan: at least one step is needed; found steps = {count}.")
    courant = end * rate / count
    slopes = tuple(zip(low.tolist(), high.tolist(), strict=True))
    plan = GridPlan(count, end / count, courant, scheme.limit, slopes, tuple(found))
    if courant > scheme.limit * (1 + 1e-9):
        raise ValueError(
            f"grid_plan: {count} steps of {end / count:.4g} were asked for; their Courant number "
            f"is {courant:.4g}, above the limit {scheme.limit:g} of {scheme.order!r} (speeds "
            f"{_shown(found)} on spacings {_shown(grid.spacing)}). Take at least "
            f"{plan.least_steps} steps, or leave `steps` out."
        )
    return plan


def check_problem(g: Array, t: ArrayLike, H: Callable, eps: ArrayLike, grid: Grid) -> None:
    """Refuse what is no initial-value problem, as far as values are known.

    **Raises:** `ValueError`.
    """
    if g.shape != grid.shape:
        raise ValueError(
            f"grid: data g of the grid's shape {grid.shape} are needed; found {g.shape}. "
            "For a batch use `jax.vmap`."
        )
    for name, value in (("t", t), ("eps", eps)):
        if jnp.ndim(value) != 0:
            raise ValueError(f"grid: {name} must be a scalar; found shape {jnp.shape(value)}.")
    if known_to_fail(jnp.isfinite(t) & (jnp.asarray(t) > 0)):
        raise ValueError(f"grid: a finite time t > 0 is needed; found {float(np.asarray(t))}.")
    if known_to_fail(jnp.isfinite(eps) & (jnp.asarray(eps) >= 0)):
        raise ValueError(f"grid: a finite eps >= 0 is needed; found {float(np.asarray(eps))}.")
    values = known(g)
    if values is not None and not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(
            f"grid: finite data g are needed; {int((~np.isfinite(values)).sum())} of "
            f"{values.size} values are not, the first g{list(where)} = {values[where]}."
        )
    p = jax.ShapeDtypeStruct((grid.dimension,), g.dtype)
    out = eqx.filter_eval_shape(H, p)
    if getattr(out, "shape", None) != ():
        raise ValueError(
            f"grid: H must map a momentum of shape ({grid.dimension},) to a scalar; it gives {out}."
        )


def _check_hamiltonian(H, low, high, flux) -> None:
    p = momenta(low, high)
    value, velocity = (np.asarray(a) for a in _sampled(H, p))
    bad = ~(np.isfinite(value) & np.isfinite(velocity).all(axis=-1))
    if bad.any():
        first = np.flatnonzero(bad)[0]
        raise ValueError(
            f"grid: H and its gradient must be finite for all slopes of the data; at "
            f"p = {np.asarray(p)[first].tolist()} they are {value[first]} and "
            f"{velocity[first].tolist()}. Give H a subgradient at its kinks (as the room's own "
            "Hamiltonians have), or data whose slopes stay inside its domain."
        )
    if flux == "upwind" and not admits_upwind(H, p):
        raise ValueError(
            "grid: flux 'upwind' needs an H that is even and nondecreasing in the size of every "
            "coordinate; at the slopes of the data this one is not. Use flux='local'."
        )


@eqx.filter_jit
def _slopes(g, grid, order):
    return slopes(g, grid, order)


@eqx.filter_jit
def _speeds(H, left, right):
    return refined_speeds(H, left, right)


@eqx.filter_jit
def _sampled(H, p):
    return jax.vmap(H)(p), jax.vmap(jax.grad(H))(p)


_box = jax.jit(box_of_slopes)


def _shown(numbers) -> str:
    return "(" + ", ".join(f"{x:.4g}" for x in numbers) + ")"
