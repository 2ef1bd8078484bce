"""What one forward pass of a PyTorch program applies: every `torch.autograd.Function`, and every module
of the user's own that holds none.

A recorder stands in for `Function.apply` during the pass. It keeps the arguments, the user's line, the
state of the random numbers, and a hook for the costate that one backward pass brings.
"""

import contextlib
import dataclasses
import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch.overrides import TorchFunctionMode  # pyright: ignore[reportMissingImports]

from hjcontrol.verification.naming import Source, users
from hjcontrol.verification.torch_places import (
    Function,
    Place,
    applying,
    called,
    floats,
    is_float,
    lowest_of,
    mapped,
    named,
    plain,
    random_state,
    tensors,
    unnoted,
)
from hjcontrol.verification.torch_whole import Whole, padded, restated

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

    def applied(self, original: Callable[..., Any], rule: Any, *args: Any, **kwargs: Any) -> Any:
        """Stands in for `rule.apply`."""
        if not issubclass(rule, Function):  # what a transform of `torch.func` made of one
            self.dissolved.append(rule.__name__.removesuffix("Generated"))
        own = rule.__module__.split(".")[0] == "torch" and rule.__module__ != CUSTOM_OP
        if own or kwargs:
            return original(rule, *args, **kwargs)
        if torch._C._are_functorch_transforms_active():
            self.dissolved.append(rule.__name__)
            return original(rule, *args)
        given = [a for a in args if is_float(a)]
        active = torch.is_grad_enabled() and any(a.requires_grad for a in given)
        if not given or (not self.within and not active):
            return original(rule, *args)
        with unnoted():
            place = self._place(original, rule, args, active)
        self.within.append(place)
        try:
            out = original(rule, *args)
        finally:
            self.within.pop()
        with unnoted():
            place.keep(out, active and not self.within)
        if self.within:
            self.inner.setdefault(id(self.within[-1]), []).append(place)
            return out
        self.places.append(place)
        self.held.update(self.scope)
        self.nodes.update(a.grad_fn for a in tensors(out) if a.grad_fn is not None)
        return out

    def _place(
        self, original: Callable[..., Any], rule: Any, args: Sequence[Any], active: bool
    ) -> Place:
        chosen = [i for i, a in enumerate(args) if is_float(a) and (a.requires_grad or not active)]
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
    source = _definition(code, name)
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
    )


def _grouped(args: Sequence[Any], chosen: Sequence[int]) -> list[tuple[int, ...]]:
    found: dict[int, list[int]] = {}
    for i in chosen:
        found.setdefault(id(args[i]), []).append(i)
    return [tuple(g) for g in found.values()]


def _definition(code: Any, scope: str) -> Source:
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


# ------------------------------------------------------------------ one pass


@dataclasses.dataclass(eq=False)
class Run:
    """One forward and one backward pass. `missed`: custom nodes of the graph that the recorder did not
    meet; `detached`: what cut a gradient, with the user's line; `weights`: the costate of the outputs."""

    places: list[Place]
    inner: dict[int, list[Place]]
    cost: float
    gradient: dict[str, Any]
    scalar: bool
    dtype: str
    dissolved: list[str]
    missed: list[str]
    detached: list[str]
    whole: Whole

    @property
    def finite(self) -> bool:
        """Whether all of the gradient is."""
        return all(bool(torch.isfinite(g).all()) for g in self.gradient.values())


def guilty(run: Run) -> tuple[str, Source] | None:
    """The node of the graph that first gives a NaN, and the user's line that made it."""
    leaves = [a.clone().requires_grad_() for a in run.whole.args]
    found = []
    with warnings.catch_warnings(record=True) as told, torch.enable_grad():
        warnings.simplefilter("always")
        try:
            with torch.autograd.set_detect_anomaly(True):
                outs = [a for a in floats(run.whole.apply(*leaves)) if a.requires_grad]
                torch.autograd.grad([a.sum() for a in outs], leaves, allow_unused=True)
        except RuntimeError as error:
            found = re.findall(r"Function '(\w+)' returned nan", str(error))
    if not found:
        return None
    lines = re.findall(
        r'File "(.+)", line (\d+), in (\S+)', "\n".join(str(w.message) for w in told)
    )
    own = [line for line in lines if users(line[0])]
    source = Source(own[-1][0], int(own[-1][1]), own[-1][2], library=False) if own else Source()
    return found[0], source


class _Cuts(TorchFunctionMode):
    """Notes the user's lines that detach a tensor of the graph, or use one under `no_grad`."""

    def __init__(self, recording: Recording):
        super().__init__()
        self.recording, self.found = recording, []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.recording.within or not any(a.requires_grad for a in floats(args)):
            return out
        if func in (torch.Tensor.detach, torch.detach, torch.Tensor.data.__get__):
            self.found.append(f".detach() at {_source('')}")
        elif not torch.is_grad_enabled() and floats(out):
            self.found.append(f"no_grad at {_source('')}")
        return out


def run(fn: Callable[..., Any], inputs: tuple[Any, ...], seed: int) -> Run:
    """The program once forward, recorded, and once backward."""
    module: Any = fn if isinstance(fn, torch.nn.Module) else None
    parameters = dict(module.named_parameters()) if module is not None else {}
    leaves = {k: p for k, p in parameters.items() if p.requires_grad}
    every = not leaves and not any(a.requires_grad for a in floats(inputs))
    names = {id(p): k for k, p in leaves.items()}
    order = iter(range(len(list(tensors(inputs)))))

    def fresh(a: Any) -> Any:
        name = f"input {next(order)}"
        if not (a.requires_grad or (every and is_float(a))):
            return a.detach().clone()
        leaves[name] = a.detach().clone().requires_grad_()
        given = leaves[name].clone()  # which the program may write on
        names[id(given)] = name
        return given

    with torch.enable_grad(), _kept(module):
        given = mapped(fresh, inputs)
        if not leaves:
            kinds = sorted({named(a.dtype) for a in tensors(inputs)}) or ["no tensor"]
            raise ValueError(
                "verify_torch: nothing to differentiate: no parameter requires a gradient and no input "
                f"is floating; found {', '.join(kinds)}. Pass floating tensors as arguments."
            )
        recording = Recording(names)
        random = random_state()
        with (
            _hooked(module, recording),
            _Cuts(recording) as cuts,
            applying(recording.applied),
        ):
            out = fn(*given)
        outs = [a for a in floats(out) if a.requires_grad]
        if not outs:
            raise ValueError(
                "verify_torch: no output requires a gradient: the program returns nothing that depends "
                "differentiably on its parameters or inputs. Return the loss, or the outputs."
            )
        scalar = len(outs) == 1 and outs[0].numel() == 1
        r = [_weights(a, scalar, seed) for a in outs]
        cost = sum(float((a.detach() * w.conj()).sum().real) for a, w in zip(outs, r, strict=True))
        missed = _missed(outs, recording)
        whole = Whole(
            rule=type(fn).__name__ if module is not None else getattr(fn, "__name__", "program"),
            kind="program",
            source=_definition(getattr(getattr(fn, "forward", fn), "__code__", None), ""),
            args=[a.detach().clone() for a in leaves.values()],
            groups=[(i,) for i in range(len(leaves))],
            labels=list(leaves),
            apply=restated(fn, module, parameters, leaves, inputs),
            body=None,
            random=random,
            still={name: row for name, row in padded(module).items() if name in leaves},
        )
        whole.keep(out, False)
        whole.live = [a.requires_grad for a in floats(out)]
        try:
            found = torch.autograd.grad(outs, list(leaves.values()), r, allow_unused=True)
        except RuntimeError as error:
            why = " ".join(str(error).split())[:300]
            raise ValueError(f"verify_torch: the backward pass does not run: {why}") from error
    return Run(
        places=recording.places,
        inner=recording.inner,
        cost=cost,
        gradient={
            k: torch.zeros_like(a) if g is None else g
            for (k, a), g in zip(leaves.items(), found, strict=True)
        },
        scalar=scalar,
        dtype=named(lowest_of([a.dtype for a in leaves.values()])),
        dissolved=recording.dissolved,
        missed=missed,
        detached=cuts.found,
        whole=whole,
    )


def _weights(a: Any, scalar: bool, seed: int) -> Any:
    """The costate of an output: 1 for a cost, else random."""
    if scalar:
        return torch.ones_like(a)
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(a.shape, generator=draw, dtype=torch.float64).to(a.device, a.dtype)


def _missed(outs: list[Any], recording: Recording) -> list[str]:
    """Names of the graph's custom nodes that no place stands for."""
    found, seen, todo = set(), set(), [a.grad_fn for a in outs]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        custom = isinstance(node, torch.autograd.function.BackwardCFunction)
        if (custom and node not in recording.nodes) or type(node).__name__ == "CppFunction":
            found.add(node.name())
        todo += [parent for parent, _ in node.next_functions]
    return sorted(found)


@contextlib.contextmanager
def _kept(module: Any) -> Iterator[None]:
    """The module's buffers are afterwards what they were."""
    held = {} if module is None else dict(module.named_buffers())
    before = {k: b.clone() for k, b in held.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for k, b in before.items():
                held[k].copy_(b)


@contextlib.contextmanager
def _hooked(module: Any, recording: Recording) -> Iterator[None]:
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
