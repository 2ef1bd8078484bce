"""A rule inside a transform of `torch.func`: one sample of its arguments, outside the transform."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch._C import _functorch as levels  # pyright: ignore[reportMissingImports]
from torch._functorch import pyfunctorch  # pyright: ignore[reportMissingImports]

from hjcontrol.verification.torch_trees import is_float, mapped

active = torch._C._are_functorch_transforms_active


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """No transform is active for a while."""
    with pyfunctorch.temporarily_clear_interpreter_stack():
        yield


def forward_mode() -> bool:
    """Whether a transform takes a derivative forward, for which a rule has a `jvp` of its own."""
    kinds = [i.key() for i in pyfunctorch.retrieve_all_functorch_interpreters()]
    return levels.TransformType.Jvp in kinds


def tracked(a: Any) -> bool:
    """Whether a transform, or the graph outside, differentiates by a tensor."""
    while is_float(a) and levels.is_functorch_wrapped_tensor(a):
        if levels.is_gradtrackingtensor(a):
            return True
        a = levels.get_unwrapped(a)
    return is_float(a) and a.requires_grad


def _sample(a: Any) -> Any:
    along = []
    while levels.is_functorch_wrapped_tensor(a):
        if levels.is_batchedtensor(a):
            along.append(levels.maybe_get_bdim(a))
        a = levels.get_unwrapped(a)
    for dim in reversed(along):  # each counts without the batches of the transforms inside it
        a = a.select(dim, 0)
    return a.detach().clone()


def first_sample(tree: Any) -> Any:
    """The first sample of each tensor, free of transforms; call it `outside`."""
    return mapped(_sample, tree)
