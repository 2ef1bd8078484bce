r"""What an ensemble consists of, checked as it comes in: samples in front of every array.

inputs, targets, forcing, context        every leaf (n, ...), n >= 1, inputs floating
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import fits
from hjcontrol._ground.jaxprs import one_by_one
from hjcontrol._ground.shapes import of_drawn, of_one
from hjcontrol._ground.trees import TreeLike
from hjcontrol.control.statement import check_targets
from hjcontrol.networks.chain import Chain, Tied
from hjcontrol.networks.stage import AbstractStage


def arrays(tree: Any) -> Any:
    """A tree whose lists of numbers, or of such lists, are arrays, as are another library's arrays; a
    list of arrays stays a tree.

    **Raises:** `ValueError` for rows that differ in length, or for an array that gives no numbers.
    """
    if _of_others(tree):
        return _foreign(tree)  # of PyTorch, pandas
    if isinstance(tree, np.ma.MaskedArray) and np.ma.is_masked(tree):
        raise ValueError(
            "ControlProblem: masked entries have no value to compute with; found a masked array. Fill "
            "them by `array.filled(value)`, or leave those samples out."
        )
    if isinstance(tree, np.ma.MaskedArray):
        return np.asarray(tree)
    if hasattr(tree, "toarray") and hasattr(tree, "nnz"):
        raise ValueError(
            f"ControlProblem: arrays must be dense; found a {type(tree).__name__}. Convert it by "
            "`.toarray()`."
        )
    if isinstance(tree, (list, tuple)) and tree and not hasattr(tree, "_fields"):
        if all(isinstance(a, (int, float)) for a in _numbers(tree)):
            try:
                return np.asarray(tree)
            except ValueError as error:
                raise ValueError(
                    "ControlProblem: a list of samples must have rows of one length; found rows that "
                    "differ. Pad or cut them."
                ) from error
        return type(tree)(map(arrays, tree))
    if isinstance(tree, dict):
        return {name: arrays(part) for name, part in tree.items()}
    return tree


def _of_others(tree: Any) -> bool:
    known = (np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct)
    return hasattr(tree, "__array__") and not isinstance(tree, known)


def _foreign(array: Any) -> np.ndarray:
    """Another library's array.

    **Raises:** `ValueError` for one that cannot be read, or holds other things than numbers.
    """
    try:
        found = np.asarray(array)
    except Exception as error:  # the library's own: whatever it raises
        raise ValueError(
            f"ControlProblem: a {type(array).__name__} must become an array of NumPy: {error}"
        ) from error
    if found.dtype.kind not in "biufV":
        raise ValueError(
            f"ControlProblem: arrays must hold numbers; found a {type(array).__name__} of "
            f"{found.dtype}. Encode its other columns, or leave them out."
        )
    return found


def _numbers(tree: Any) -> Any:
    for part in tree:
        if isinstance(part, (list, tuple)):
            yield from _numbers(part)
        else:
            yield part


def sequences(forcing: PyTree) -> PyTree[Array]:
    """A forcing as arrays: a list of sequences is stacked, a ragged one refused.

    **Raises:** `ValueError`, with the lengths found.
    """
    if isinstance(forcing, list):
        forcing = [arrays(a) for a in forcing]
    forcing = _foreign(forcing) if _of_others(forcing) else forcing
    if isinstance(forcing, list) and all(np.ndim(a) > 0 for a in forcing):
        lengths = sorted({len(a) for a in forcing})
        if len(lengths) > 1:
            raise ValueError(
                "ControlProblem: the sequences of `forcing` must have one length, for depth is time and "
                f"the same for all samples; found {', '.join(map(str, lengths[:4]))}. Pad or cut them, "
                "or state one problem a length."
            )
        if lengths:
            return jnp.stack([jnp.asarray(a) for a in forcing])
    return as_arrays("forcing", forcing)


def as_arrays(name: str, tree: Any) -> Any:
    """A tree's leaves as arrays of JAX.

    **Raises:** `ValueError` for a function, or a loader's.
    """
    for leaf in jax.tree.leaves(tree):
        if callable(leaf):
            raise ValueError(
                f"ControlProblem: `{name}` must be arrays; found {shown(leaf)}. A function or a loader "
                "gives batches (inputs, targets), as `inputs` alone."
            )
    return jax.tree.map(jnp.asarray, tree)


def samples(ensemble: dict[str, PyTree]) -> int:
    """How many samples an ensemble has.

    **Raises:** `ValueError` for none, integer inputs, or leaves that differ in length.
    """
    leaves = jax.tree.leaves(ensemble["inputs"])
    if not leaves or any(a.ndim == 0 for a in leaves):
        raise ValueError("ControlProblem: `inputs` must have a leading sample axis; found none.")
    n = leaves[0].shape[0]
    if n == 0:
        raise ValueError("ControlProblem: at least one sample is needed; found none.")
    for a in leaves:
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise ValueError(
                f"ControlProblem: `inputs` must be floating (they have costates); found {a.dtype}. "
                "Convert them by `inputs.astype(float)`."
            )
    for name, tree in ensemble.items():
        for a in jax.tree.leaves(tree):
            if a.ndim == 0 or a.shape[0] != n:
                also = " A list of arrays is a tree: stack samples by `np.stack`."
                raise ValueError(
                    f"ControlProblem: every leaf of `{name}` must have {n} samples in front; "
                    f"found shape {a.shape}.{also if isinstance(tree, (list, tuple)) else ''}"
                )
    return n


def whole_chain(**options: Any) -> None:
    """Refuse what says something of a model's arrays beside a `Chain`.

    **Raises:** `ValueError`.
    """
    for name, value in options.items():
        if value is not None and value != ():
            raise ValueError(
                f"ControlProblem: `{name}` is for stages or a model; found it beside a Chain, which is "
                "complete. Pass the stages."
            )


def tokens(inputs: Any, stages: Any) -> tuple[Any, tuple[bool, ...]]:
    """Inputs of whole numbers as floating ones, for a model that takes them; and which leaves are."""
    first = stages[0] if isinstance(stages, (list, tuple)) and stages else stages
    leaves = jax.tree.leaves(inputs)
    whole = tuple(jnp.issubdtype(a.dtype, jnp.integer) for a in leaves)
    plain = callable(first) and inspect.isroutine(first) and not hasattr(first, "__self__")
    own = plain or isinstance(first, (AbstractStage, Chain, Tied))
    if not any(whole) or own:
        return inputs, ()
    floating = [a.dtype for a, w in zip(leaves, whole, strict=True) if not w]
    dtype = jnp.result_type(*floating) if floating else jnp.result_type(float)
    cast = [a.astype(dtype) if w else a for a, w in zip(leaves, whole, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(inputs), cast), whole


def on_samples_of(problem: Any, inputs: Any, targets: Any) -> Any:
    """The same problem on other samples of the same shapes.

    **Raises:** `ValueError` for samples shaped otherwise, or where each has more than inputs and targets.
    """
    more = [n for n in ("forcing", "context", "references") if getattr(problem, n) is not None]
    if more:
        raise ValueError(
            f"ControlProblem.on: each sample of this problem has `{more[0]}` besides inputs and targets; "
            "state a problem on the other samples."
        )
    first = (problem.inputs, problem.targets) if problem.stream is None else problem.stream.first
    cast = lambda a: jnp.asarray(a, problem.dtype if _floating(a) else None)
    inputs, targets = (
        jax.tree.map(cast, fits("ControlProblem.on", name, arrays(tree), TreeLike))
        for name, tree in (("inputs", inputs), ("targets", targets))
    )
    samples({"inputs": inputs, "targets": targets})
    shapes = [jax.tree.map(lambda a: jnp.shape(a)[1:], tree) for tree in (first, (inputs, targets))]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "ControlProblem.on: one sample's (inputs, targets) must have the shapes "
            f"{shapes[0]}; found {shapes[1]}."
        )
    one = of_one((inputs, targets))
    weights = of_drawn(problem.init)
    final = jax.eval_shape(problem.chain, weights, one[0])
    check_targets(problem.terminal, targets, one[1], final)
    return replaced(problem, inputs=inputs, targets=targets, stream=None)


def in_precision(targets: Any, dtype: Any) -> Any:
    """Floating targets in the inputs' dtype, in which everything runs; labels as they are."""
    return jax.tree.map(lambda a: a.astype(dtype) if _floating(a) else a, targets)


def picked(problem: Any, own: Callable[[Any], Any]) -> Any:
    """The same problem on some of its samples: `own` takes them of every array that has samples in front.
    A reference may be one for all samples."""
    n = problem.num_samples
    parts = lambda p: (p.inputs, p.targets, p.forcing, p.context, p.references)
    chosen = jax.tree.map(lambda a: own(a) if a.shape[0] == n else a, parts(problem))
    return eqx.tree_at(parts, problem, chosen, is_leaf=lambda leaf: leaf is None)


def placed(problem: Any, inputs: Any, targets: Any) -> Any:
    """The same problem on a batch of a stream, which has checked it."""
    inputs, targets = jax.tree.map(jnp.asarray, (inputs, targets))
    inputs = jax.tree.map(lambda a: a.astype(problem.dtype), inputs)  # tokens
    targets = in_precision(targets, problem.dtype)
    read = problem.references
    if read is not None and read.target is not None:  # a cost reads the sample's target
        read = dataclasses.replace(read, target=jax.tree.map(lambda a: a[:, None], targets))
    return replaced(problem, inputs=inputs, targets=targets, references=read, stream=None)


def replaced(problem: Any, **fields: Any) -> Any:
    """A problem with other fields, which have been checked."""
    new = copy.copy(problem)
    for name, value in fields.items():
        object.__setattr__(new, name, value)
    return new


def _floating(a: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(a), jnp.floating)


@eqx.filter_jit
def drawn(chain: Chain, control_set: Any, dtype: Any, key: Any) -> Any:
    """Weights to start from."""
    cast = lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
    arrays, static = eqx.partition((chain, control_set), eqx.is_array)

    def draw(arrays: Any, key: Any) -> Any:
        chain, control_set = eqx.combine(arrays, static)
        return control_set.project(jax.tree.map(cast, chain.init(key)))

    return one_by_one(draw, arrays, key)
