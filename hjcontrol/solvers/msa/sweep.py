r"""One sweep: the augmented Hamiltonian of every stage minimised, along given states and costates.

    H~_k(theta) = H_k(x_k, p_{k+1}, theta) + rho/2 sum_i |x_{k+1}^i - F_k(x_k^i, theta)|^2
                                           + rho/2 sum_i |p_k^i - dH_k/dx^i(x_k, p_{k+1}, theta)|^2

H_k     minimum principle, p = +dJ/dx with the mean's 1/n in it, weight cost included once
x, p    of the present weights, so both penalties and their slopes vanish there: dH~/dtheta = dJ/dtheta_k
rho     0: the plain method. The penalties are sums over samples, as published (Li, Chen, Tai & E,
        JMLR 18:165, 2018, whose Hamiltonian is maximised and is ours with p -> -p)

Why it descends (their Theorem 1, in this sign): for new weights,
    J' - J <= sum_k [H_k(theta') - H_k(theta)] + C sum_k [|dF_k|^2 + |d(dH_k/dx)|^2],
so where rho > 2 C a decrease of H~ is one of J. Tied stages share one minimisation over their sum.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, Trajectory, sample_hamiltonian
from hjcontrol.control.hamiltonians import inner
from hjcontrol.networks import AbstractStage, Weights, advance
from hjcontrol.networks.given import Given

StageObjective = Callable[[PyTree[Array]], Float[Array, ""]]
# From an objective, a stage's weights and its run's place: new weights, by how much the objective fell.
Minimiser = Callable[[StageObjective, PyTree[Array], int], tuple[PyTree[Array], Float[Array, ""]]]


class Along(Shown):
    """States and costates on both sides of a stage; leaves `(n, ...)`, a run's `(length, n, ...)`."""

    x: PyTree[Array]
    p: PyTree[Array]
    x_next: PyTree[Array]
    p_next: PyTree[Array]


def sweep(
    problem: ControlProblem,
    weights: Weights,
    paths: tuple[Trajectory, Trajectory],
    rho: Float[Array, ""] | None,
    minimise: Minimiser,
) -> tuple[Weights, Float[Array, ""]]:
    """New weights of all stages, and the sum of the decreases of `H~`.

    `paths`: states and costates of `weights`; `rho=None`: no penalties.
    """
    states, costates = paths
    new, decrease = [], jnp.zeros((), problem.dtype)
    given = problem.given_by_depth
    for r, (run, theta) in enumerate(zip(problem.chain.runs, weights, strict=True)):
        if not jax.tree.leaves(theta):
            new.append(theta)
            continue
        arrays, static = eqx.partition(run.stage, eqx.is_array)
        forced = run.stage.reads == "forcing"
        along = _along(states, costates, r)

        def share(arrays: Any, th: Any, here: Along, u: Any, static: Any = static) -> Array:
            return _augmented(problem, eqx.combine(arrays, static), th, here, u, rho)

        own = 0 if forced else None
        axes = (None, None, 0, Given(own, 0) if isinstance(given[r], Given) else own)
        if run.tied:
            alone = jax.tree.map(lambda a: a[0], arrays)

            def total(
                th: Any, a: Any = alone, h: Any = along, r: int = r, axes: Any = axes
            ) -> Array:
                paid = problem.weight_cost(th)
                return jnp.sum(jax.vmap(share, axes)(a, th, h, given[r])) + paid

            th, fell = minimise(total, jax.tree.map(lambda a: a[0], theta), r)
            th = jax.tree.map(lambda a: a[None], th)
        else:

            def least(a: Any, th: Any, here: Along, u: Any, share: Any = share, r: int = r) -> Any:
                return minimise(lambda t: share(a, t, here, u) + problem.weight_cost(t), th, r)

            th, fell = jax.vmap(least, (0, 0, *axes[2:]))(arrays, theta, along, given[r])
        new.append(th)
        decrease = decrease + jnp.sum(fell)
    return tuple(new), decrease


def _augmented(
    problem: ControlProblem, stage: AbstractStage, theta: Any, here: Along, u: Any, rho: Any
) -> Float[Array, ""]:
    """One stage's `H~` without the weight cost."""
    one = lambda x, q, u: sample_hamiltonian(problem, stage, x, q, theta, u)
    if rho is None:
        return jnp.sum(jax.vmap(one)(here.x, here.p_next, u))
    value, slope = jax.vmap(jax.value_and_grad(one))(here.x, here.p_next, u)
    following = jax.vmap(lambda x, u: advance(stage, x, theta, u))(here.x, u)
    gaps = jax.tree.map(jnp.subtract, (here.x_next, here.p), (following, slope))
    return jnp.sum(value) + 0.5 * rho * inner(gaps, gaps)


def _along(states: Trajectory, costates: Trajectory, r: int) -> Along:
    """A run's states and costates, depth in front."""
    (x, x_next), (p, p_next) = _sides(states, r), _sides(costates, r)
    return Along(x, p, x_next, p_next)


def _sides(path: Trajectory, r: int) -> tuple[PyTree[Array], PyTree[Array]]:
    deep = lambda tree: jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), tree)
    here = deep(path.runs[r])
    last = r + 1 == len(path.runs)
    end = path.final if last else jax.tree.map(lambda a: a[:, 0], path.runs[r + 1])
    if jax.tree.leaves(here)[0].shape[0] == 1:  # a lone stage may change its state's shape
        return here, jax.tree.map(lambda a: a[None], end)
    return here, jax.tree.map(lambda a, b: jnp.concatenate([a[1:], b[None]]), here, end)
