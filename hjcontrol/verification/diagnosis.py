"""When a network cannot be verified at all: which stage, and what to do.

    batched          vmap(F_k)            every route works on the ensemble
    differentiable   vjp(F_k)             `backprop` is what is judged, so it must exist

Forward mode is not needed: where a stage has none (a host callback, a primitive without a tangent), its
derivative is taken by Richardson differences of its values. No complex step is tried: it would be
silently wrong on a program that is not analytic, and a host callback cannot be asked for complex values.
"""

import textwrap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hjcontrol.control import ControlProblem
from hjcontrol.control.hamiltonians import given_at
from hjcontrol.networks import advance

REMEDIES = {
    "run on a batch of samples": "Give a host callback `vmap_method='sequential'`, or write the stage in "
    "operations that `jax.vmap` knows.",
    "be differentiated in reverse mode": "Give it a `jax.custom_vjp` (which is then verified against "
    "differences of its values), or replace a `while_loop` by a `scan` of fixed length.",
}


def diagnosed(
    problem: ControlProblem, name: Callable[[ControlProblem, int], str], error: Exception
) -> ValueError | None:
    """What is wrong with the first stage that cannot be verified; `None` if it is no stage's fault.
    `error`: what was raised."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    weights = jax.eval_shape(problem.chain.unstack, jax.eval_shape(problem.init, key))
    one = lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype)
    x = jax.tree.map(one, problem.inputs)
    k = 0
    for run in problem.chain.runs:
        u = jax.tree.map(one, given_at(problem, k))
        found = _tried(lambda *a, run=run: advance(run[0], *a), (x, weights[k], u))
        if found is not None:
            what, why = found
            return ValueError(
                f"verify: stage {k} ({name(problem, k)}) cannot {what}: {why}. {REMEDIES[what]}"
            )
        for _ in range(run.length):
            x = jax.eval_shape(lambda *a, run=run: advance(run[0], *a), x, weights[k], u)
            k += 1
    return _of_refs(error)


def _of_refs(error: Exception) -> ValueError | None:
    words = str(error)
    if "JaxprInputEffect" not in words and "mutable array" not in words:
        return None
    return ValueError(
        "verify: a stage keeps values in a `jax.new_ref`, and JAX cannot differentiate it in a row of "
        f"equal stages, which is a scan: {_short(error)}. Write the stage without refs."
    )


def _short(error: Exception) -> str:
    return textwrap.shorten(str(error), 250, placeholder=" ...").rstrip(".")


def _tried(step: Callable, at: Any) -> tuple[str, str] | None:
    def batched(x: Any, theta: Any, u: Any) -> Any:
        two = lambda tree: jax.tree.map(lambda a: jnp.stack([a, a]), tree)
        return jax.vmap(step, in_axes=(0, None, 0))(two(x), theta, two(u))

    def reversed_(x: Any, theta: Any, u: Any) -> Any:
        y, back = jax.vjp(lambda x, theta: step(x, theta, u), x, theta)
        return back(y)

    trials = dict(zip(REMEDIES, (batched, reversed_), strict=True))
    for what, trial in trials.items():
        try:
            jax.eval_shape(trial, *at)
        except Exception as error:  # the stage is the user's: it may raise anything
            return what, _short(error)
    return None
