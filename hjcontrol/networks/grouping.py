"""Which neighbouring stages are alike, and whether each accepts its state: on shapes alone.

    stages F_0 .. F_{K-1}, one sample's state   ->   runs of stages that one scan goes through

Alike are stages of one code, one structure and equal static fields, that keep the shape of their state.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hjcontrol._ground.arguments import HIDDEN
from hjcontrol._ground.shapes import of_drawn, of_one
from hjcontrol.networks.stage import AbstractStage, advance

# How often it is applied with the same weights; 0 if it is not tied
Piece = tuple[AbstractStage, int]


def grouped(
    pieces: list[Piece], state: PyTree, forcing: PyTree, context: PyTree
) -> list[tuple[AbstractStage, int, bool]]:
    """The runs: stages stacked, how many there are, and whether they are tied. The state and what is
    given: one sample's, as shapes.

    **Raises:** `ValueError` for a stage that does not accept its state, a tied one that changes its
    shape, or given data that no stage or too few of them read.
    """
    check_given([stage for stage, times in pieces for _ in range(times or 1)], forcing, context)
    read = {"nothing": None, "forcing": of_one(forcing), "context": context}
    groups: list[tuple[list[AbstractStage], int]] = []
    keeps, k = False, 0  # the previous stage maps its state to one of the same shape
    for stage, times in pieces:
        if keeps and not times and not groups[-1][1] and _stackable(groups[-1][0][0], stage):
            groups[-1][0].append(stage)  # one more of the same: no need to trace it again
            k += 1
            continue
        after = _state_after(stage, state, k, read[stage.reads])
        groups.append(([stage], times))
        keeps = _avals(after) == _avals(state)
        if times > 1 and not keeps:
            raise ValueError(_changes_shape(stage, state, after, k, times))
        state, k = after, k + max(times, 1)
    return [(_stack(stages), times or len(stages), times > 0) for stages, times in groups]


def in_shapes(tree: PyTree) -> PyTree:
    """Arrays, or what becomes arrays, as shapes."""
    if all(isinstance(s, jax.ShapeDtypeStruct) for s in jax.tree.leaves(tree)):
        return tree
    return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree))


def check_given(stages: Sequence[AbstractStage], forcing: PyTree, context: PyTree) -> None:
    """Refuse one sample's forcing that is not as long as the stages that read it are many."""
    readers = [k for k, stage in enumerate(stages) if stage.reads == "forcing"]
    lengths = {a.shape[0] if a.shape else 0 for a in jax.tree.leaves(forcing)}
    if readers and not lengths:
        raise ValueError(
            f"Chain: stage {readers[0]} ({type(stages[readers[0]]).__name__}) reads a forcing; found "
            f"none. Pass `forcing=`, with {len(readers)} steps a sample."
        )
    if lengths and lengths != {len(readers)}:
        raise ValueError(
            f"Chain: {len(readers)} stages read the forcing, so its sequences must have "
            f"{len(readers)} steps; found {', '.join(map(str, sorted(lengths)))}. Pad or cut the "
            "sequences to one length, or repeat the recurrent stage as often as there are steps."
        )
    if jax.tree.leaves(context) and all(stage.reads != "context" for stage in stages):
        raise ValueError("Chain: a `context` was given, and no stage reads it. Leave it out.")


def _changes_shape(stage: AbstractStage, before: PyTree, after: PyTree, k: int, times: int) -> str:
    shapes = lambda tree: ", ".join(
        f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(tree)
    )
    return (
        f"Chain: stage {k} ({type(stage).__name__}) is tied over {times} steps, so it must keep its "
        f"state's shape; found {shapes(before)} before and {shapes(after)} after. Put what changes "
        "the shape (`lift`, `readout`) into a stage of its own, before or after; inputs and forcing need "
        "one dtype."
    )


def _avals(tree: PyTree) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _state_after(stage: AbstractStage, state: PyTree, k: int, u: PyTree) -> PyTree:
    theta = None
    try:
        theta = _like_state(of_drawn(stage.init), state)
        after = jax.eval_shape(lambda *a: advance(stage, *a), state, theta, u)
    except Exception as error:  # the user's stage: whatever it raises
        shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
        kind = "" if isinstance(error, (TypeError, ValueError)) else f"{type(error).__name__}: "
        words = f"{kind}{(str(error).splitlines() or [''])[0]}"
        if isinstance(error, HIDDEN) or isinstance(error.__context__, HIDDEN):
            words = (
                "its code asks for the value of what it computes with (`if x > 0`, `float(x)`, a "
                "function of NumPy), which is known only when the compiled program runs. Use jnp and "
                "jnp.where."
            )
        elif _takes_batches(stage, state, theta, u):
            words += " It takes a batch, and a stage takes one sample: lambda x: model(x[None])[0]."
        raise ValueError(
            f"Chain: stage {k} ({type(stage).__name__}) does not accept its state of shape "
            f"{shapes[0] if len(shapes) == 1 else shapes}: {words}"
        ) from error
    for leaf in jax.tree.leaves(after):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"Chain: stage {k} ({type(stage).__name__}) gives {leaf.dtype}{list(leaf.shape)}; a "
                "state is of real floating numbers, for it has a costate. Convert it in the stage."
            )
    return after


def _takes_batches(stage: AbstractStage, state: PyTree, theta: PyTree, u: PyTree) -> bool:
    front = lambda tree: jax.tree.map(lambda a: a[None], tree)
    try:
        jax.eval_shape(lambda x, th, u: advance(stage, front(x), th, u), state, theta, u)
    except Exception:  # it fails so too
        return False
    return True


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
