"""The grid witness: a 256 x 256 grid to T = 0.5 with its gradient, and beside hj_reachability.

The Huber problem: `u_t + |grad u|^2/2 = 0` from `g(x) = sum |x_i|` on [-3, 3]^d, errors on `|x_i| <= 2`.
Its solution is a sum of Huber functions. hj_reachability steps `V_t = -H` backwards in time, so it is
handed `-|p|^2/2` and a negative target time. `gradient` or `table` as argument runs that half only.
"""

import importlib
import importlib.util
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from harness import header, row, timed

from hjcontrol.hamilton_jacobi import HalfQuadratic
from hjcontrol.hamilton_jacobi.grid import Grid
from hjcontrol.hamilton_jacobi.grid_planning import GridScheme, grid_plan
from hjcontrol.hamilton_jacobi.grid_solver import grid_solve

T = 0.5
SCHEMES = [
    GridScheme("first", "global"),
    GridScheme("first", "upwind"),
    GridScheme("weno5", "local"),
]
SCHEMES += [GridScheme("weno5", "upwind")]


def box(n: int, d: int) -> Grid:
    return Grid(-3.0 * np.ones(d), 3.0 * np.ones(d), (n,) * d)


def initial(x):
    return jnp.sum(jnp.abs(x), axis=-1)


def huber(x):
    a = jnp.abs(x)
    return jnp.sum(jnp.where(a <= T, a**2 / (2 * T), a - T / 2), axis=-1)


def errors(u, points) -> dict[str, float]:
    inside = np.asarray(jnp.max(jnp.abs(points), axis=-1) <= 2)
    gap = np.abs(np.asarray(u) - np.asarray(huber(points)))[inside]
    return {"largest_error": float(gap.max()), "mean_error": float(gap.mean())}


def ours(n: int, d: int, scheme: GridScheme) -> None:
    grid = box(n, d)
    g = initial(grid.points)
    run = lambda: grid_solve(g, T, HalfQuadratic(), 0.0, grid, scheme=scheme).u
    name = f"hjcontrol {scheme.order} {scheme.flux}"
    seconds, least, most = timed(run, 3)
    row(
        method=name,
        points=[n] * d,
        **errors(run(), grid.points),
        seconds=seconds,
        spread=[least, most],
    )


def theirs(n: int, d: int, accuracy: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hj = importlib.import_module("hj_reachability")

    class Dynamics(hj.ControlAndDisturbanceAffineDynamics):
        def __init__(self):
            none = hj.sets.Box(jnp.zeros(1), jnp.zeros(1))
            super().__init__("min", "max", none, none)

        def open_loop_dynamics(self, state, time):
            return jnp.zeros_like(state)

        def control_jacobian(self, state, time):
            return jnp.zeros((d, 1))

        def disturbance_jacobian(self, state, time):
            return jnp.zeros((d, 1))

        def hamiltonian(self, state, time, value, grad_value):
            return -jnp.sum(grad_value**2) / 2

        def partial_max_magnitudes(self, state, time, value, grad_value_box):
            return jnp.maximum(jnp.abs(grad_value_box.lo), jnp.abs(grad_value_box.hi))

    theirs_grid = hj.Grid.from_lattice_parameters_and_boundary_conditions(
        hj.sets.Box(-3.0 * np.ones(d), 3.0 * np.ones(d)), (n,) * d,
        boundary_conditions=(hj.boundary_conditions.extrapolate,) * d,
    )  # fmt: skip
    settings = hj.SolverSettings.with_accuracy(accuracy)
    g = initial(theirs_grid.states)
    run = lambda: hj.step(settings, Dynamics(), theirs_grid, 0.0, g, -T, progress_bar=False)
    seconds, least, most = timed(run, 3)
    name = f"hj_reachability {accuracy}"
    row(
        method=name,
        points=[n] * d,
        **errors(run(), theirs_grid.states),
        seconds=seconds,
        spread=[least, most],
    )


def gradient(n: int, eps: float, scheme: GridScheme) -> None:
    """Value, and derivative of the mean of u^2 in all initial values: seconds and a check of it."""
    grid = box(n, 2)
    g = initial(grid.points)
    steps = grid_plan(g, T, HalfQuadratic(), eps, grid, scheme=scheme).steps
    J = lambda g: jnp.mean(
        grid_solve(g, T, HalfQuadratic(), eps, grid, scheme=scheme, steps=steps).u ** 2
    )
    both = jax.jit(jax.value_and_grad(J)).lower(g).compile()
    found = []
    seconds, least, most = timed(lambda: found.append(both(g)) or found[-1], 2)
    v = jnp.cos(grid.points[..., 0] + 0.4) * jnp.cos(2 * grid.points[..., 1])
    h = 1e-5
    differences = (both(g + h * v)[0] - both(g - h * v)[0]) / (2 * h)
    along = jnp.sum(found[-1][1] * v)
    row(
        method=f"value and gradient, {scheme.order} {scheme.flux}",
        points=[n, n],
        eps=eps,
        steps=steps,
        against_differences=float(jnp.abs(along - differences) / jnp.abs(differences)),
        megabytes=both.memory_analysis().temp_size_in_bytes / 2**20,
        seconds=seconds,
        spread=[least, most],
    )


def main() -> None:
    header("Grid witness: u_t + |grad u|^2/2 = eps lap u from sum |x_i|, to T = 0.5")
    asked = sys.argv[1:] or ["gradient", "table"]
    if "gradient" in asked:
        for scheme in SCHEMES[1:]:
            for eps in (0.0, 0.1):
                gradient(256, eps, scheme)
    if "table" in asked:
        table()


def table() -> None:
    peer = importlib.util.find_spec("hj_reachability") is not None
    for n, d in ((51, 1), (401, 1), (51, 2), (201, 2)):
        for scheme in SCHEMES:
            ours(n, d, scheme)
        for accuracy in ("low", "very_high") if peer else ():
            theirs(n, d, accuracy)
    if not peer:
        print("hj_reachability is not installed (extra `bench`): its rows are missing.")


if __name__ == "__main__":
    main()
