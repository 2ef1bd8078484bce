r"""The witness: `u_t + H(grad u) = eps lap u`, `u(., 0) = g`, by finite differences on a grid.

    first    u <- E(dt) [u - dt h(p-, p+)]                              Euler, monotone, order 1
    weno5    three stages, order 3, strong-stability-preserving          `_three_stages`
    E(s) = exp(s eps lap_h),  one matrix an axis, computed once          so that viscosity sets no limit

h is the numerical Hamiltonian (`grid_flux.py`), lap_h the discrete Laplacian (`grid_differences.py`). One
compiled program: a scan over blocks of steps, recomputed in the reverse pass block by block and stage by
stage, so that the gradient in g, eps and the parameters of H holds about `10 sqrt(steps)` grids.

It never calls the room's own evaluation, and the room never calls it: that is what makes it a witness.
Method with exact linear part: Isherwood, Grant, Gottlieb, SIAM J. Numer. Anal. 56 (2018), eSSPRK+(3,3).
"""

import functools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known
from hjcontrol._ground.record import Record, Told, figure
from hjcontrol._ground.results import GOOD, RESULTS, name_of
from hjcontrol._ground.shown import Shown
from hjcontrol.hamilton_jacobi.grid import Grid
from hjcontrol.hamilton_jacobi.grid_differences import laplacian_matrix, slopes
from hjcontrol.hamilton_jacobi.grid_flux import numerical_hamiltonian, refined_speeds, speeds
from hjcontrol.hamilton_jacobi.grid_planning import GridScheme, check_problem, grid_plan


class GridSolution(Told, Shown):
    """`u` at time `t` on the grid, and how it came about.

    `courant` is the greatest Courant number measured in any step, `limit` what the scheme allows.
    """

    u: Float[Array, "*shape"]
    t: Float[Array, ""]
    courant: Float[Array, ""]
    result: RESULTS
    limit: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def as_record(self) -> Record:
        """What this result says of itself."""
        name = name_of(self.result)
        return Record(
            f"Grid solution at t = {figure(self.t)}",
            f"{self.steps} steps on {' x '.join(map(str, self.u.shape))} points",
            verdict=name.replace("_", " "),
            tone="good" if name in GOOD else "bad",
            facts={
                "steps": self.steps,
                "Courant number": f"{figure(self.courant)} of {figure(self.limit)} allowed",
                "result": RESULTS[self.result],
            },
        )


@admits(t="> 0", eps=">= 0", steps=">= 0", max_steps=">= 0")
def grid_solve(
    g: Float[Array, "*shape"],
    t: Float[ArrayLike, ""] | float | int,
    H: Callable[[Array], Array],
    eps: Float[ArrayLike, ""] | float | int,
    grid: Grid,
    *,
    scheme: GridScheme | None = None,
    steps: int | None = None,
    max_steps: int = 100_000,
    throw: bool = False,
) -> GridSolution:
    r"""Solution at time `t` of $u_t + H(\nabla u) = \varepsilon\Delta u$, $u(\cdot,0)=g$, on a grid.

    **Arguments:**

    - `g`: initial data on the grid's points, of the grid's shape.
    - `t`: a positive time. `eps`: a viscosity >= 0.
    - `H`: one momentum, shape (d,), to a scalar; with first derivatives wherever slopes go.
    - `scheme`: see [`GridScheme`][hjcontrol.hamilton_jacobi.GridScheme].
    - `steps`: how many. Left out, they are computed from the data by
      [`grid_plan`][hjcontrol.hamilton_jacobi.grid_plan]; in `jit` and `grad`, where data have no
      values, they must be given. A few more may be taken, so that they fill whole blocks.
    - `throw`: raise if the result is not `successful`, instead of returning it.

    **Returns:** a `GridSolution`. Differentiable in `g`, `t`, `eps` and the arrays of `H`. The
    dissipation of flux `global` counts as a constant of the scheme, not of the problem. Where speeds tie
    or data are flat, the flux has a kink, and the derivative is one of the generalised ones.

    **Raises:** `ValueError` for values that are no initial-value problem, and for `steps` whose
    Courant number is above the limit.
    """
    scheme = GridScheme() if scheme is None else scheme
    check_problem(g, t, H, eps, grid)
    arrays = jax.tree.leaves(eqx.filter((g, t, H, eps), eqx.is_array))
    if steps is None or all(known(leaf) is not None for leaf in arrays):
        plan = grid_plan(g, t, H, eps, grid, scheme=scheme, steps=steps, max_steps=max_steps)
        steps = plan.steps
    viscosity = known(eps)
    viscous = viscosity is None or bool(viscosity > 0)
    t, eps = jnp.asarray(t, g.dtype), jnp.asarray(eps, g.dtype)
    solution = _run(g, t, H, eps, grid, scheme, *_blocks(steps), viscous)
    if throw:
        bad = solution.result != RESULTS.successful
        solution = eqx.tree_at(lambda s: s.u, solution, solution.result.error_if(solution.u, bad))
    return solution


def _blocks(steps: int) -> tuple[int, int]:
    """Blocks, and steps in each: about equal, and no fewer steps in all than asked for."""
    blocks = max(1, math.isqrt(steps))
    return blocks, -(-steps // blocks)


@eqx.filter_jit
def _run(g, t, H, eps, grid, scheme, blocks, length, viscous) -> GridSolution:
    steps = blocks * length
    dt = t / steps
    heat = _heat(dt, eps, grid, scheme) if viscous else _no_heat
    euler = [lambda rise, v, u, n: (heat(3, v + rise), u, n)]  # keeps nothing between stages
    stages = euler if scheme.order == "first" else _three_stages(heat)
    widths = jnp.asarray(grid.spacing, g.dtype)
    # A parameter of the scheme, not of the problem: derivatives are those at this dissipation.
    fastest = jax.lax.stop_gradient(refined_speeds(H, *slopes(g, grid, scheme.order)))

    @jax.checkpoint
    def stage(carry, k):
        (v, *kept), worst = carry
        left, right = slopes(v, grid, scheme.order)
        courant = jax.lax.stop_gradient(dt * jnp.sum(speeds(H, left, right) / widths))
        rise = -dt * numerical_hamiltonian(H, left, right, scheme.flux, fastest)
        return (jax.lax.switch(k, stages, rise, v, *kept), jnp.fmax(worst, courant)), None

    def step(carry, _):
        return jax.lax.scan(stage, carry, jnp.arange(len(stages)))

    @jax.checkpoint
    def block(carry, _):
        (u, *_), worst = carry
        return jax.lax.scan(step, ((u, u, u), worst), length=length)

    start = ((g, g, g), jnp.zeros((), g.dtype))
    ((u, *_), courant), _ = jax.lax.scan(block, start, length=blocks)
    finite = jnp.all(jnp.isfinite(u))
    slack = 1 + 1e3 * float(jnp.finfo(u.dtype).eps)
    result = RESULTS.where(
        finite,
        RESULTS.where(
            courant <= scheme.limit * slack, RESULTS.successful, RESULTS.courant_exceeded
        ),
        RESULTS.blown_up,
    )
    return GridSolution(u, t, courant, result, scheme.limit, steps)


def _three_stages(heat):
    """Stages of `(v, u, n)`: where the slopes are taken; what came of the start and of its rise.

    Abscissas 0, 2/3, 2/3, 1: nondecreasing, so no stage needs heat to flow backwards.
    """

    def first(rise, v, u, n):
        u, n = heat(2, v), heat(2, rise)
        return u + 2 / 3 * n, u, n

    def second(rise, v, u, n):
        return 2 / 3 * u + 1 / 3 * v + 4 / 9 * rise, u, n

    def third(rise, v, u, n):
        return heat(1, 37 / 64 * u + 5 / 32 * n + 27 / 64 * v + 9 / 16 * rise), u, n

    return [first, second, third]


def _no_heat(thirds, u):
    del thirds
    return u


def _heat(dt, eps, grid: Grid, scheme: GridScheme) -> Callable:
    """`heat(k, u)`: viscosity alone for k thirds of a step."""
    third = []
    for axis, h in enumerate(grid.spacing):
        matrix = jnp.asarray(laplacian_matrix(grid, scheme.order, axis), dt.dtype)
        third.append(_exponential(dt * eps / (3 * h**2), matrix))
    powers = {1: third, 2: [_dot(E, E) for E in third]}
    powers[3] = [_dot(E, F) for E, F in zip(third, powers[2], strict=True)]

    def flow(thirds, u):
        u = _dot(powers[thirds][0], u)
        return u if grid.dimension == 1 else _dot(u, powers[thirds][1].T)

    return flow


_dot = functools.partial(jnp.matmul, precision="highest")


@jax.custom_jvp
def _exponential(s: Array, matrix: Array) -> Array:
    """`exp(s A)`, `s >= 0`: Taylor's series of `s A / 2^k`, of norm at most 1/2, squared k times."""
    norm = s * jnp.max(jnp.sum(jnp.abs(matrix), axis=1))
    squarings = jnp.maximum(0, jnp.ceil(jnp.log2(jnp.fmax(norm, 1e-30))) + 1).astype(int)
    scaled = s * matrix / 2.0**squarings
    unit = jnp.eye(len(matrix), dtype=matrix.dtype)
    # Horner's form; 0.5^15 / 15! = 2e-17
    series = jax.lax.fori_loop(0, 15, lambda j, E: unit + _dot(scaled, E) / (15 - j), unit)
    return jax.lax.fori_loop(0, squarings, lambda _, E: _dot(E, E), series)


@_exponential.defjvp
def _exponential_derivative(primals, tangents):
    (s, matrix), (ds, _) = primals, tangents  # the matrix is a constant of the grid
    E = _exponential(s, matrix)
    return E, ds * _dot(matrix, E)
