"""What is changed where a PyTorch place is run again: its rules set aside, roundoff drawn at every
operation, everything in float64, loops run on.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import torch  # pyright: ignore[reportMissingImports]
from torch.overrides import TorchFunctionMode  # pyright: ignore[reportMissingImports]

from hjcontrol.verification.torch_trees import is_float, mapped, widened

function, Function = torch.autograd.function, torch.autograd.Function
Level = Function.__bases__[0]  # whose `apply` every application ends in
Tensor = torch.Tensor

# ------------------------------------------------------------------ rules


class _Context:
    """What `forward` and `setup_context` write on, where nothing is kept."""

    def __init__(self, needs: tuple[bool, ...]):
        self.needs_input_grad = needs
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *kept: Any) -> None:
        self.saved_tensors = kept

    save_for_forward = save_for_backward

    def mark_dirty(self, *args: Any) -> None:
        """Nothing to do."""

    mark_non_differentiable = mark_dirty
    set_materialize_grads = mark_dirty


def plain(rule: Any, *args: Any, **kwargs: Any) -> Any:
    """`forward` without its rule."""
    if rule.setup_context is not Function.setup_context:
        return rule.forward(*args, **kwargs)
    needs = tuple(isinstance(a, torch.Tensor) and a.requires_grad for a in args)
    return rule.forward(_Context(needs), *args, **kwargs)


@contextlib.contextmanager
def applying(apply: Callable[..., Any]) -> Iterator[None]:
    """`rule.apply(*args)` is `apply(original, rule, *args)` for a while, also where bound before."""
    above, level = function.custom_function_call, Level.__dict__.get("apply")

    def transformed(rule: Any, *args: Any, **kwargs: Any) -> Any:
        """A transform of `torch.func` does not come to the level with `rule` itself."""
        return apply(above, rule, *args, **kwargs)

    def met(rule: Any, *args: Any, **kwargs: Any) -> Any:
        return apply(_below, rule, *args, **kwargs)

    function.custom_function_call, Level.apply = transformed, classmethod(met)
    try:
        yield
    finally:
        function.custom_function_call = above
        if level is None:
            del Level.apply
        else:
            Level.apply = level


def _below(rule: Any, *args: Any, **kwargs: Any) -> Any:
    """PyTorch's own application."""
    return super(Level, rule).apply(*args, **kwargs)


def _aside(original: Callable[..., Any], rule: Any, *args: Any, **kwargs: Any) -> Any:
    if issubclass(rule, Function):
        return plain(rule, *args, **kwargs)
    return original(rule, *args, **kwargs)  # what a transform of `torch.func` made of one


def set_aside() -> Any:
    """Every rule is its `forward`."""
    return applying(_aside)


# ------------------------------------------------------------------ roundoff


class _Roundoff(TorchFunctionMode):
    """Every floating result times `1 + eps u`, `u = +-1`, eps of its own dtype."""

    def __init__(self, salt: int):
        super().__init__()
        self.draw = torch.Generator().manual_seed(salt)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not is_float(out) or out._is_view() or any(out is a for a in args):
            return out
        u = torch.randint(0, 2, out.shape, generator=self.draw, dtype=torch.int8) * 2 - 1
        return out * (1 + torch.finfo(out.dtype).eps * u.to(out.device, torch.float64)).to(
            out.dtype
        )


def shaken(salt: int) -> Any:
    """Roundoff drawn; none for `salt` 0."""
    return _Roundoff(salt) if salt else contextlib.nullcontext()


# ------------------------------------------------------------------ float64

DOUBLED = (Tensor.float, Tensor.half, Tensor.bfloat16)
autocast = torch.amp.autocast_mode.autocast


class _Wide(TorchFunctionMode):
    """What is cast to a floating dtype, or made in one, is of 64 bits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DOUBLED:
            func = Tensor.double
        args, kwargs = _dtypes(args), _dtypes(kwargs or {})
        try:
            out = func(*args, **kwargs)
        except RuntimeError:  # a tensor that the program holds has fewer bits
            out = func(*mapped(_widest, args), **mapped(_widest, kwargs))
        return out if isinstance(out, torch.Size) else mapped(_widest, out)


def _widest(a: Any) -> Any:
    return a.to(widened(a.dtype)) if is_float(a) else a


def _dtypes(tree: Any) -> Any:
    """Arguments whose floating dtypes are of 64 bits."""
    if isinstance(tree, torch.dtype):
        return widened(tree) if tree.is_floating_point or tree.is_complex else tree
    if type(tree) is tuple:
        return tuple(map(_dtypes, tree))
    return {k: _dtypes(v) for k, v in tree.items()} if type(tree) is dict else tree


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Casts go to 64 bits, and `autocast` casts nothing."""
    enter, default = autocast.__enter__, torch.get_default_dtype()

    def entered(region: Any) -> Any:
        region._enabled = False
        return enter(region)

    autocast.__enter__ = entered
    torch.set_default_dtype(torch.float64)
    try:
        with _Wide():
            yield
    finally:
        torch.set_default_dtype(default)
        autocast.__enter__ = enter


# ------------------------------------------------------------------ loops


class _Number(float):
    """What `item()` gives: its comparisons are decisions too."""

    ask: Callable[[bool], bool]

    def __lt__(self, other: Any) -> bool:
        return self.ask(float(self) < other)

    def __le__(self, other: Any) -> bool:
        return self.ask(float(self) <= other)

    def __gt__(self, other: Any) -> bool:
        return self.ask(float(self) > other)

    def __ge__(self, other: Any) -> bool:
        return self.ask(float(self) >= other)


DECIDING = (Tensor.__bool__, torch.allclose, Tensor.allclose, torch.equal, Tensor.equal)


class Decisions(TorchFunctionMode):
    """The decisions that a program takes by the values of its tensors, line by line.

    A line whose last answer ends the others ends a loop. `ends`: the answer that ends it, by line; with
    `sweeps > 0` it is given so many questions later.
    """

    def __init__(self, ends: dict[Any, bool] | None = None, sweeps: int = 0):
        super().__init__()
        self.ends, self.sweeps = ends or {}, sweeps
        self.told: dict[Any, list[bool]] = {}
        self.left: dict[Any, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in DECIDING:
            return self._ask(bool(out))
        if func is Tensor.item and type(out) is float:
            number = _Number(out)
            number.ask = self._ask
            return number
        return out

    def _ask(self, answer: bool) -> bool:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(ASIDE):
            frame = frame.f_back
        line = frame.f_code, frame.f_lineno
        if self.ends.get(line) is answer:
            left = self.left.setdefault(line, self.sweeps)
            self.left[line] = left - 1
            if left > 0:
                answer = not answer
            else:
                del self.left[line]
        self.told.setdefault(line, []).append(answer)
        return answer

    def ended(self) -> dict[Any, bool]:
        """The lines that end a loop, and by which answer."""
        return {k: a[-1] for k, a in self.told.items() if len(set(a)) == 2 and a[-2] != a[-1]}


ASIDE = (__file__, torch.__path__[0], jaxtyping.__path__[0])  # of which no line is the program's
