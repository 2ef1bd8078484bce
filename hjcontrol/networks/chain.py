"""Composition: a chain of stages, stored as runs of equal ones.

    x_{k+1} = F_k(x_k, theta_k),   k = 0 .. K-1

Neighbouring stages of one kind (same code, same shapes, state kept) form a *run*: their array leaves
and weights are stacked on a leading axis and scanned, so compile time does not grow with depth.
`weights` is a tuple with one entry a run, every leaf with the run's length in front.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from hjcontrol.networks.stage import AbstractStage, as_stage

Weights = tuple[PyTree[Array], ...]


class Run(eqx.Module):
    """`length` equal stages; array leaves of `stage` carry a leading axis of that length."""

    stage: AbstractStage
    length: int = eqx.field(static=True)

    def scan(
        self,
        body: Callable[[Any, AbstractStage, Any], tuple[Any, Any]],
        carry: Any,
        xs: Any,
        reverse: bool = False,
    ) -> tuple[Any, Any]:
        """Fold `body(carry, stage_k, xs_k) -> (carry, out_k)` over the run's stages."""
        arrays, static = eqx.partition(self.stage, eqx.is_array)

        def step(c: Any, slices: Any) -> tuple[Any, Any]:
            stage_arrays, x = slices
            return body(c, eqx.combine(stage_arrays, static), x)

        if self.length == 1:  # no loop for a lone stage
            carry, out = step(carry, jax.tree.map(lambda a: a[0], (arrays, xs)))
            return carry, jax.tree.map(lambda a: jnp.asarray(a)[None], out)
        return jax.lax.scan(step, carry, (arrays, xs), length=self.length, reverse=reverse)

    def __getitem__(self, k: int) -> AbstractStage:
        return jax.tree.map(lambda a: a[k] if eqx.is_array(a) else a, self.stage)


class Chain(eqx.Module):
    """Stages in order of depth. `len(chain)` is the number of stages, `chain[k]` the k-th."""

    runs: tuple[Run, ...]

    def __init__(self, stages: Sequence[Any], state: PyTree):
        """**Arguments:** `stages`: stages or pieces that `as_stage` accepts; `state`: one sample's input,
        an array or a `jax.ShapeDtypeStruct`, from which every later state's shape follows.

        **Raises:** `ValueError` for no stages, or for a stage that does not accept its state.
        """
        stages = [as_stage(s) for s in stages]
        if not stages:
            raise ValueError("Chain: at least one stage is needed; found none.")
        state = (
            jax.eval_shape(lambda: jax.tree.map(jnp.asarray, state)) if _concrete(state) else state
        )
        groups: list[list[AbstractStage]] = []
        keeps = False  # the previous stage maps its state to one of the same shape
        for k, stage in enumerate(stages):
            if keeps and _stackable(groups[-1][0], stage):
                groups[-1].append(stage)  # one more of the same: no need to trace it again
                continue
            after = _state_after(stage, state, k)
            groups.append([stage])
            keeps, state = _avals(after) == _avals(state), after
        self.runs = tuple(Run(_stack(group), len(group)) for group in groups)

    def __len__(self) -> int:
        return sum(run.length for run in self.runs)

    def __getitem__(self, k: int) -> AbstractStage:
        for run in self.runs:
            if 0 <= k < run.length:
                return run[k]
            k -= run.length
        raise IndexError("stage index out of range")

    def init(self, key: Key[Array, ""]) -> Weights:
        """Weights to start from; stage `k` draws from the `k`-th key of `jax.random.split`."""
        keys = jax.random.split(key, len(self))
        starts = itertools.accumulate((r.length for r in self.runs), initial=0)
        return tuple(
            eqx.filter_vmap(lambda stage, k: stage.init(k))(run.stage, keys[a : a + run.length])
            for run, a in zip(self.runs, starts, strict=False)
        )

    def unstack(self, weights: Weights) -> list[PyTree[Array]]:
        """Weights as a list with one entry a stage."""
        return [
            jax.tree.map(lambda a, k=k: a[k], theta)
            for run, theta in zip(self.runs, weights, strict=True)
            for k in range(run.length)
        ]

    def stack(self, thetas: Sequence[PyTree[Array]]) -> Weights:
        """The inverse of `unstack`.

        **Raises:** `ValueError` if there is not one entry a stage.
        """
        if len(thetas) != len(self):
            raise ValueError(
                f"stack: one entry a stage is needed, {len(self)}; found {len(thetas)}."
            )
        it = iter(thetas)
        return tuple(
            jax.tree.map(lambda *a: jnp.stack(a), *itertools.islice(it, run.length))
            for run in self.runs
        )

    def states(self, weights: Weights, x: PyTree[Array]) -> tuple[tuple[PyTree, ...], PyTree]:
        """One sample's states: for each run the inputs of its stages, stacked; and the final state."""
        collected = []
        for run, theta in zip(self.runs, weights, strict=True):
            x, xs = run.scan(lambda x, stage, th: (stage.step(x, th), x), x, theta)
            collected.append(xs)
        return tuple(collected), x

    def __call__(self, weights: Weights, x: PyTree[Array]) -> PyTree[Array]:
        """One sample's final state."""
        for run, theta in zip(self.runs, weights, strict=True):
            x, _ = run.scan(lambda x, stage, th: (stage.step(x, th), None), x, theta)
        return x


def _concrete(state: PyTree) -> bool:
    return not all(isinstance(s, jax.ShapeDtypeStruct) for s in jax.tree.leaves(state))


def _avals(tree: PyTree) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _state_after(stage: AbstractStage, state: PyTree, k: int) -> PyTree:
    try:
        theta = jax.eval_shape(stage.init, jax.eval_shape(lambda: jax.random.key(0)))
        theta = _like_state(theta, state)
        return jax.eval_shape(stage.step, state, theta)
    except (TypeError, ValueError) as error:
        shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
        raise ValueError(
            f"Chain: stage {k} ({type(stage).__name__}) does not accept its state of shape "
            f"{shapes[0] if len(shapes) == 1 else shapes}: {str(error).splitlines()[0]}"
        ) from error


def _like_state(theta: PyTree, state: PyTree) -> PyTree:
    """Weights in the state's floating dtype: the core runs in the caller's precision."""
    dtype = jnp.result_type(*jax.tree.leaves(state))
    return jax.tree.map(
        lambda t: (
            jax.ShapeDtypeStruct(t.shape, dtype) if jnp.issubdtype(t.dtype, jnp.floating) else t
        ),
        theta,
    )


def _stackable(a: AbstractStage, b: AbstractStage) -> bool:
    arrays_a, static_a = eqx.partition(a, eqx.is_array)
    arrays_b, static_b = eqx.partition(b, eqx.is_array)
    if jax.tree.structure(a) != jax.tree.structure(b) or _avals(arrays_a) != _avals(arrays_b):
        return False
    return bool(eqx.tree_equal(static_a, static_b))


def _stack(group: list[AbstractStage]) -> AbstractStage:
    return jax.tree.map(
        lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *group
    )
