r"""Minimisation of one stage's Hamiltonian over its weights: in closed form, or by an inner solver.

    quadratic objective, free or bounded weights closed form (see `quadratic`)
    otherwise   lbfgs                            optax, free weights
                projected_gradient               any set: spectral steps, halved until they descend
                lbfgsb                           jaxopt, free or bounded weights

An answer that is not better than the start is not taken. Everything can be vmapped over stages.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.shown import Shown
from hjcontrol._ground.third_party import needs
from hjcontrol.control import AbstractControlSet, ControlProblem, Free
from hjcontrol.control.batches import check_batch_size
from hjcontrol.control.units import Units, in_units, plain, resolved
from hjcontrol.solvers.msa.quadratic import (
    LARGEST,
    Candidates,
    Flat,
    curvature,
    free_minimum,
    is_quadratic,
    product_minimum,
)
from hjcontrol.solvers.msa.sweep import Minimiser, StageObjective
from hjcontrol.solvers.solver import AbstractSolver, Info

Inner = Literal["auto", "lbfgs", "projected_gradient", "lbfgsb"]
INNERS = ("auto", "lbfgs", "projected_gradient", "lbfgsb")
HALVINGS = 30
DEFAULT = 1e-7  # tolerance; where the dtype is coarser, what it resolves


class StageMinimiser(Shown):
    """How stages are minimised: the inner solver, its most steps, and whether closed forms are used."""

    inner: Inner = eqx.field(static=True, default="auto")
    steps: int = eqx.field(static=True, default=10)
    closed: bool = eqx.field(static=True, default=True)
    unit: Float[Array, ""] | float = 1.0  # of the objective

    def check(self, problem: ControlProblem, who: str) -> None:
        """Raise `ValueError` for an option that does not exist, or does not fit the control set."""
        if self.inner not in INNERS:
            raise ValueError(
                f"{who}: `inner` must be one of {', '.join(INNERS)}; found {self.inner!r}."
            )
        if self.steps < 1:
            raise ValueError(f"{who}: `steps` must be at least 1; found {self.steps}.")
        theta_set = problem.control_set
        fits = {"lbfgs": isinstance(theta_set, Free), "lbfgsb": theta_set.elementwise}
        if not fits.get(self.inner, True):
            raise ValueError(
                f"{who}: `inner={self.inner!r}` cannot keep weights in {type(theta_set).__name__}. "
                "Use `inner='projected_gradient'`."
            )

    def on(self, theta_set: AbstractControlSet) -> Minimiser:
        """The minimiser over one stage's weights in `theta_set`."""

        def minimise(
            objective: StageObjective, theta: PyTree, run: int
        ) -> tuple[PyTree, Float[Array, ""]]:
            flat, unravel = ravel_pytree(theta)
            value = lambda v: in_units(jnp.asarray(objective(unravel(v)), flat.dtype), self.unit)
            project = lambda v: ravel_pytree(theta_set.project_stage(unravel(v), run))[0]
            bounds = None
            if theta_set.elementwise:
                bounds = tuple(ravel_pytree(b)[0] for b in theta_set.bounds_stage(theta, run))
            new = self._solve(theta_set, value, flat, project, bounds)
            fell = value(flat) - value(new)
            if not self._exact(theta_set, value, flat):
                new, fell = jnp.where(fell > 0, new, flat), jnp.maximum(jnp.nan_to_num(fell), 0.0)
            return unravel(new), self.unit * fell

        return minimise

    def _exact(self, theta_set: AbstractControlSet, value: Flat, flat: Array) -> bool:
        small = flat.size <= LARGEST and theta_set.elementwise
        return self.closed and small and is_quadratic(value, flat)

    def _solve(
        self,
        theta_set: AbstractControlSet,
        value: Flat,
        flat: Array,
        project: Callable,
        bounds: Any,
    ) -> Array:
        if self._exact(theta_set, value, flat):
            g, A = curvature(value, flat)
            if isinstance(theta_set, Free):
                return flat + free_minimum(g, A)
            return product_minimum(flat, g, A, _in_box(bounds))
        if self.inner == "lbfgsb":
            return _lbfgsb(value, flat, bounds, self.steps)
        if self.inner == "lbfgs" or (self.inner == "auto" and isinstance(theta_set, Free)):
            return _lbfgs(value, flat, self.steps)
        return _projected_gradient(value, flat, project, self.steps)


def _in_box(bounds: tuple[Array, Array]) -> Candidates:
    def candidates(c: Array, i: Any) -> Array:
        ends = jnp.stack([b[i] for b in bounds])
        inside = jnp.clip(c, *ends)
        return jnp.concatenate([inside[None], jnp.where(jnp.isfinite(ends), ends, inside)])

    return candidates


def _lbfgs(value: Flat, start: Array, steps: int) -> Array:
    solver = optax.lbfgs()
    evaluate = optax.value_and_grad_from_state(value)

    def body(_: Any, carry: Any) -> Any:
        v, state = carry
        cost, g = evaluate(v, state=state)
        change, state = solver.update(g, state, v, value=cost, grad=g, value_fn=value)
        return optax.apply_updates(v, change), state

    return jax.lax.fori_loop(0, steps, body, (start, solver.init(start)))[0]


def _projected_gradient(value: Flat, start: Array, project: Callable, steps: int) -> Array:
    slope = jax.value_and_grad(value)

    def body(_: Any, carry: Any) -> Any:
        v, cost, g, length = carry

        def trial(t: Array) -> tuple[Array, Array]:
            w = project(v - t * g)
            return w, value(w)

        def too_long(c: Any) -> Array:
            t, count, w, new = c
            move = w - v
            model = cost + jnp.vdot(g, move) + jnp.vdot(move, move) / (2 * t)
            return ~(new <= model) & (count < HALVINGS)

        halve = lambda c: (0.5 * c[0], c[1] + 1, *trial(0.5 * c[0]))
        first = (length, jnp.asarray(0), *trial(length))
        t, count, w, _ = jax.lax.while_loop(too_long, halve, first)
        w = jnp.where(count < HALVINGS, w, v)
        new_cost, new_g = slope(w)
        s, y = w - v, new_g - g
        bend, size = jnp.vdot(s, y), jnp.vdot(s, s)
        spectral = jnp.where(bend > 0, size / jnp.where(bend > 0, bend, 1.0), 2.0 * t)
        return w, new_cost, new_g, jnp.clip(spectral, 0.1 * t, 100.0 * t)

    cost, g = slope(start)
    size = jnp.max(jnp.abs(g), initial=0.0)
    first = 1.0 / jnp.where(size > jnp.finfo(size.dtype).tiny, size, 1.0)
    return jax.lax.fori_loop(0, steps, body, (start, cost, g, jnp.asarray(first, start.dtype)))[0]


class AbstractSweeps(AbstractSolver):
    """A method that minimises every stage's Hamiltonian in each sweep."""

    inner: eqx.AbstractVar[Inner]
    steps: eqx.AbstractVar[int]
    tol: eqx.AbstractVar[Float[Array, ""]]
    batch_size: eqx.AbstractVar[int | None]
    closed: eqx.AbstractVar[bool]
    unit: eqx.AbstractVar[Float[Array, ""] | float]

    minibatch = True

    @property
    def stages(self) -> StageMinimiser:
        """How stages are minimised."""
        return StageMinimiser(self.inner, self.steps, self.closed, self.unit)

    def check(self, problem: ControlProblem) -> None:
        who = type(self).__name__
        self.stages.check(problem, who)
        check_batch_size(problem, self.batch_size, who)

    def measuring(self, units: Units) -> "AbstractSweeps":
        tol = resolved(self.tol, DEFAULT, 0.5, units)
        return dataclasses.replace(self, tol=tol, unit=plain(units.gradient))

    def info(self, state: Any) -> Info:
        return Info(state.point.objective, state.stationarity, state.sweeps + 1)


def _lbfgsb(value: Flat, start: Array, bounds: Any, steps: int) -> Array:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="jaxopt")
        needs("MSA's inner L-BFGS-B", "jaxopt")
        import jaxopt

    solver = jaxopt.LBFGSB(fun=value, maxiter=steps, tol=0.0, implicit_diff=False)
    return solver.run(start, bounds=bounds).params
