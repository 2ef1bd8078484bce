"""Tensors in nested arguments and outputs, and one backward pass from them to leaves."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

# What `torch.autograd.grad` calls; itself it would leave every `TorchFunctionMode` that is active.
engine = torch.autograd.graph._engine_run_backward
REENTRANT = "CheckpointFunctionBackward"  # its backward pass runs `torch.autograd.backward`


def _fields(tree: Any) -> dict[str, Any]:
    """The fields of a dataclass's object; none of anything else."""
    if not dataclasses.is_dataclass(tree) or isinstance(tree, type):
        return {}
    return {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree) if f.init}


def tensors(tree: Any) -> Iterator[Any]:
    """The tensors of nested tuples, lists, dicts and dataclasses."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from tensors(item)
    elif isinstance(tree, dict):
        yield from tensors(list(tree.values()))
    else:
        yield from (a for item in _fields(tree).values() for a in tensors(item))


def mapped(f: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `f` of each tensor, in order."""
    if isinstance(tree, torch.Tensor):
        return f(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(f, item) for item in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(mapped(f, item) for item in tree)
    if type(tree) is dict:
        return {key: mapped(f, item) for key, item in tree.items()}
    if not isinstance(tree, dict) and (held := _fields(tree)):
        return dataclasses.replace(tree, **{key: mapped(f, item) for key, item in held.items()})
    return tree


def is_float(a: Any) -> bool:
    """Whether a costate of it exists."""
    return isinstance(a, torch.Tensor) and (a.is_floating_point() or a.is_complex())


def floats(tree: Any) -> list[Any]:
    """The floating tensors of a tree."""
    return [a for a in tensors(tree) if is_float(a)]


def dense(a: Any) -> Any:
    """A sparse tensor as a dense one."""
    return a if a.layout == torch.strided else a.to_dense()


def array(a: Any) -> np.ndarray:
    """A tensor on the host; below float32 as float32, which holds it."""
    a = dense(a.detach()).resolve_conj().resolve_neg().cpu()
    return np.array((a.float() if a.dtype in (torch.bfloat16, torch.float16) else a).numpy())


def tensor(a: Any, like: Any, dtype: Any) -> Any:
    """An array as a tensor on the device of another."""
    return torch.as_tensor(np.array(a), device=like.device).to(dtype)


def widened(dtype: Any) -> Any:
    """Its counterpart of 64 bits a real number."""
    return torch.complex128 if dtype.is_complex else torch.float64


def lowest_of(dtypes: list[Any]) -> Any:
    """The coarsest dtype."""
    return max(dtypes, key=lambda d: torch.finfo(d).eps)


def named(dtype: Any) -> str:
    """The dtype's name."""
    return str(dtype).removeprefix("torch.")


# ------------------------------------------------------------------ one backward pass


def nodes(outs: Sequence[Any]) -> Iterator[Any]:
    """The nodes of the graph above some tensors."""
    seen, todo = set(), [a.grad_fn for a in outs]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        todo += [parent for parent, _ in node.next_functions]


def reentrant(outs: Sequence[Any]) -> bool:
    """Whether the graph holds a checkpoint that refuses `torch.autograd.grad`."""
    return any(node.name() == REENTRANT for node in nodes(outs))


def pulled_back(outs: Sequence[Any], leaves: Sequence[Any], r: Sequence[Any]) -> list[Any]:
    """The derivative of `Re <r, outs>` by each leaf, dense; `None` where there is none.

    A checkpoint that runs its own backward pass gives to `.grad`: what arrives there is counted, and
    `.grad` of each leaf is afterwards what it was.
    """
    before = [a.grad for a in leaves]
    for a in leaves:
        a.grad = None
    try:
        again = reentrant(outs)
        by = () if again else tuple(leaves)
        given = tuple(outs), tuple(r)
        found = engine(*given, False, False, by, allow_unreachable=True, accumulate_grad=again)
        found = [None] * len(leaves) if again else found
        pairs = zip(found, [a.grad for a in leaves], strict=True)
        both = [[g for g in pair if g is not None] for pair in pairs]
        return [dense(sum(g[1:], g[0])) if g else None for g in both]
    finally:
        for a, g in zip(leaves, before, strict=True):
            a.grad = g
