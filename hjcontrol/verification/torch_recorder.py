"""What one forward pass of a PyTorch program applies: every `torch.autograd.Function`, and every module
of the user's own that holds none.

A recorder stands in for `Function.apply` during the pass. It keeps the arguments, the user's line, the
state of the random numbers, and a hook for the costate that one backward pass brings.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch.overrides import TorchFunctionMode  # pyright: ignore[reportMissingImports]

from hjcontrol.verification.naming import Source, users
from hjcontrol.verification.torch_places import Place, called, random_state, unnoted
from hjcontrol.verification.torch_replay import Function, plain
from hjcontrol.verification.torch_transformed import (
    active,
    first_sample,
    forward_mode,
    outside,
    tracked,
)
from hjcontrol.verification.torch_trees import floats, is_float, tensors

CUSTOM_OP = "torch._library.autograd"
CALLS = 4  # of one module that are judged


@dataclasses.dataclass(eq=False)
class Recording:
    """What one forward pass met: places, what it could not see, names of tensors."""

    names: dict[int, str]
    places: list[Place] = dataclasses.field(default_factory=list)
    inner: dict[int, list[Place]] = dataclasses.field(default_factory=dict)  # by id of the outer
    nodes: set[Any] = dataclasses.field(default_factory=set)
    dissolved: list[str] = dataclasses.field(default_factory=list)
    scope: list[str] = dataclasses.field(default_factory=list)
    within: list[Place] = dataclasses.field(default_factory=list)
    held: set[str] = dataclasses.field(default_factory=set)  # modules that hold a place
    calls: dict[str, int] = dataclasses.field(default_factory=dict)
    open: list[Place | None] = dataclasses.field(default_factory=list)
    foreign: int = 0  # applications of PyTorch's own that are under way
    # Of leaves met, before the pass
    grads: dict[int, Any] = dataclasses.field(default_factory=dict)

    def applied(self, original: Callable[..., Any], rule: Any, *args: Any, **kwargs: Any) -> Any:
        """Stands in for `rule.apply`."""
        own = rule.__module__.split(".")[0] == "torch" and rule.__module__ != CUSTOM_OP
        if own or kwargs or not issubclass(rule, Function):  # or what `torch.func` made of one
            self.foreign += 1
            try:
                out = original(rule, *args, **kwargs)
            finally:
                self.foreign -= 1
            if not kwargs:
                self.nodes.update(a.grad_fn for a in tensors(out) if a.grad_fn is not None)
            return out
        if active():
            return self._transformed(original, rule, args)
        given = [a for a in args if is_float(a)]
        by = torch.is_grad_enabled() and any(a.requires_grad for a in given)
        if not given or (not self.within and not by):
            return original(rule, *args)
        with unnoted():
            chosen = [i for i, a in enumerate(args) if is_float(a) and (a.requires_grad or not by)]
            place = self._place(original, rule, args, chosen)
        self.within.append(place)
        try:
            out = original(rule, *args)
        finally:
            self.within.pop()
        with unnoted():
            place.keep(out, by and not self.within)
        if self.within:
            self.inner.setdefault(id(self.within[-1]), []).append(place)
            return out
        self.places.append(place)
        self.held.update(self.scope)
        self.nodes.update(a.grad_fn for a in tensors(out) if a.grad_fn is not None)
        return out

    def _transformed(self, original: Callable[..., Any], rule: Any, args: Sequence[Any]) -> Any:
        """A rule inside a transform of `torch.func`: a place of one sample, which no costate reaches."""
        chosen = [i for i, a in enumerate(args) if tracked(a)]
        random, before = random_state(), len(self.places)
        out = original(rule, *args)
        if chosen and forward_mode():
            self.dissolved.append(rule.__name__)
        elif chosen and len(self.places) == before:  # the graph outside has not met it
            self._sampled(original, rule, args, chosen, out, random)
        return out

    def _sampled(
        self,
        original: Callable[..., Any],
        rule: Any,
        args: Sequence[Any],
        chosen: Sequence[int],
        out: Any,
        random: Any,
    ) -> None:
        with unnoted(), outside(), torch.random.fork_rng():
            one = [first_sample(a) for a in args]
            place = self._place(original, rule, one, chosen)
            place.random = random
            place.keep(first_sample(out), False)
        self.places.append(place)

    def _place(
        self, original: Callable[..., Any], rule: Any, args: Sequence[Any], chosen: Sequence[int]
    ) -> Place:
        kind = "custom_op" if rule.__module__ == CUSTOM_OP else "autograd.Function"
        name = rule.__name__.removeprefix("GeneratedBackwardFor_").removesuffix("_default")
        return Place(
            rule=name if kind == "custom_op" else rule.__name__,
            kind=kind,
            source=_source(self.scope[-1] if self.scope else ""),
            args=[a.detach().clone() if isinstance(a, torch.Tensor) else a for a in args],
            groups=_grouped(args, chosen),
            labels=[self.names.get(id(a), "") for a in args],
            apply=functools.partial(original, rule),
            body=functools.partial(plain, rule),
            random=random_state(),
            own={i: args[i] for i in chosen if isinstance(args[i], torch.nn.Parameter)},
        )

    # ------------------------------------------------------------------ modules

    def enter(self, name: str, module: Any, args: Any, kwargs: Any) -> None:
        """Before a module's forward pass."""
        self.scope.append(name)
        own = type(module).__module__.split(".")[0] == "torch"
        leaf = next(module.children(), None) is None
        self.calls[name] = self.calls.get(name, 0) + 1
        wanted = leaf and not own and torch.is_grad_enabled() and not self.within
        wanted = wanted and self.calls[name] <= CALLS
        with unnoted():
            place = _module_place(name, module, args, kwargs, self.names) if wanted else None
        self.open.append(place)

    def leave(self, out: Any) -> None:
        """After it."""
        name, place = self.scope.pop(), self.open.pop()
        if (
            place is not None
            and name not in self.held
            and any(a.requires_grad for a in floats(out))
        ):
            with unnoted():
                place.keep(out, True)
            self.places.append(place)


def _module_place(
    name: str, module: Any, args: Sequence[Any], kwargs: dict[str, Any], names: dict[int, str]
) -> Place:
    held = {k: p for k, p in module.named_parameters() if p.requires_grad}
    rest = {k: b.detach().clone() for k, b in module.named_buffers()}
    rest |= {k: p.detach() for k, p in module.named_parameters() if not p.requires_grad}
    given = [*held.values(), *args, *kwargs.values()]
    first, last = len(held), len(held) + len(args)
    chosen = [i for i, a in enumerate(given) if is_float(a) and a.requires_grad]

    def apply(*moved: Any) -> Any:
        state = dict(zip(held, moved, strict=False))
        kind = moved[0].dtype if moved and is_float(moved[0]) else None
        for k, b in rest.items():
            state[k] = b.clone().to(kind) if is_float(b) and kind is not None else b.clone()
        named = dict(zip(kwargs, moved[last:], strict=True))
        return called(module, state, tuple(moved[first:last]), named)

    code = getattr(type(module).forward, "__code__", None)
    source = definition(code, name)
    inputs = [names.get(id(a), "") or f"input {i}" for i, a in enumerate(args)]
    inputs += list(kwargs)
    return Place(
        rule=type(module).__name__,
        kind="module",
        source=source,
        args=[a.detach().clone() if isinstance(a, torch.Tensor) else a for a in given],
        groups=_grouped(given, chosen),
        labels=[*(names.get(id(p), k) for k, p in held.items()), *inputs],
        apply=apply,
        body=None,
        random=random_state(),
        own=dict(enumerate(held.values())),
    )


def _grouped(args: Sequence[Any], chosen: Sequence[int]) -> list[tuple[int, ...]]:
    found: dict[int, list[int]] = {}
    for i in chosen:
        found.setdefault(id(args[i]), []).append(i)
    return [tuple(g) for g in found.values()]


def definition(code: Any, scope: str) -> Source:
    """Where a function is written."""
    if code is None:
        return Source(scope=scope)
    own = users(code.co_filename)
    return Source(code.co_filename, code.co_firstlineno, code.co_qualname, scope, library=not own)


def _source(scope: str) -> Source:
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if users(code.co_filename):
            return Source(code.co_filename, frame.f_lineno, code.co_qualname, scope, library=False)
        frame = frame.f_back
    return Source(scope=scope)


class Cuts(TorchFunctionMode):
    """Notes the user's lines that detach a tensor of the graph, or use one under `no_grad`."""

    def __init__(self, recording: Recording):
        super().__init__()
        self.recording, self.found = recording, []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [a for a in floats(args) if a.requires_grad]
        for a in given:
            if a.is_leaf:
                self.recording.grads.setdefault(id(a), (a, a.grad))
        if self.recording.within or self.recording.foreign or not given:
            return out
        scope = self.recording.scope[-1] if self.recording.scope else ""
        if func in (torch.Tensor.detach, torch.detach, torch.Tensor.data.__get__):
            self.found.append((scope, f".detach() at {_source('')}"))
        elif not torch.is_grad_enabled() and floats(out):
            self.found.append((scope, f"no_grad at {_source('')}"))
        return out


@contextlib.contextmanager
def hooked_by(module: Any, recording: Recording) -> Iterator[None]:
    """The recorder is told of every module that the program enters and leaves."""
    handles = []
    for name, part in () if module is None else module.named_modules():
        enter = functools.partial(_enter, recording, name)
        leave = lambda part, args, out: recording.leave(out)
        handles.append(part.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(part.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(recording: Recording, name: str, part: Any, args: Any, kwargs: Any) -> None:
    recording.enter(name, part, args, kwargs)
