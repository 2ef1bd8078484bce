"""One forward and one backward pass of a PyTorch program, recorded."""

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from hjcontrol.verification.naming import Source, users
from hjcontrol.verification.torch_places import Place, random_state
from hjcontrol.verification.torch_recorder import Cuts, Recording, definition, hooked_by
from hjcontrol.verification.torch_replay import applying
from hjcontrol.verification.torch_trees import (
    floats,
    is_float,
    lowest_of,
    mapped,
    named,
    nodes,
    pulled_back,
    reentrant,
    tensors,
)
from hjcontrol.verification.torch_whole import Whole, padded, restated


@dataclasses.dataclass(eq=False)
class Run:
    """One forward and one backward pass. `missed`: custom nodes of the graph that the recorder did not
    meet; `detached`: what cut a gradient, by module, with the user's line;
    `hooked`: leaves whose own hooks this pass does not call."""

    places: list[Place]
    inner: dict[int, list[Place]]
    cost: float
    gradient: dict[str, Any]
    scalar: bool
    dtype: str
    dissolved: list[str]
    missed: list[str]
    detached: list[tuple[str, str]]
    hooked: list[str]
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
                sums = [a.sum() for a in outs]
                pulled_back(sums, leaves, [torch.ones_like(a) for a in sums])
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


def run(fn: Callable[..., Any], inputs: tuple[Any, ...], seed: int) -> Run:
    """The program once forward, recorded, and once backward."""
    module: Any = fn if isinstance(fn, torch.nn.Module) else None
    parameters = dict(module.named_parameters()) if module is not None else {}
    leaves = {k: p for k, p in parameters.items() if p.requires_grad}
    every = not leaves and not any(a.requires_grad for a in floats(inputs))
    names = {id(p): k for k, p in leaves.items()}
    hooked = [k for k, p in parameters.items() if getattr(p, "_post_accumulate_grad_hooks", None)]
    order = iter(range(len(list(tensors(inputs)))))

    def fresh(a: Any) -> Any:
        name = f"input {next(order)}"
        if not (a.requires_grad or (every and is_float(a))):
            return a.detach().clone()
        if a.is_leaf and a._backward_hooks:
            hooked.append(name)
        leaves[name] = a.detach().clone().requires_grad_()
        given = leaves[name].clone()  # which the program may write on
        names[id(given)] = name
        return given

    with torch.enable_grad(), _kept(module):
        given = mapped(fresh, inputs)
        if not leaves:
            raise _nothing(inputs)
        recording, random = Recording(names), random_state()
        hooks, applied = hooked_by(module, recording), applying(recording.applied)
        with hooks, Cuts(recording) as cuts, applied:
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
        whole = _whole(fn, leaves, restated(fn, module, parameters, leaves, inputs), random)
        whole.keep(out, False)
        whole.live = [a.requires_grad for a in floats(out)]
        found = _backward(outs, leaves, r, recording)
        whole.pulled = [found]
        at = [k for k, a in enumerate(floats(out)) if a.requires_grad]
        whole.costates = dict(zip(at, r, strict=True))
    pairs = zip(leaves.items(), found, strict=True)
    return Run(
        places=recording.places,
        inner=recording.inner,
        cost=cost,
        gradient={k: torch.zeros_like(a) if g is None else g for (k, a), g in pairs},
        scalar=scalar,
        dtype=named(lowest_of([a.dtype for a in leaves.values()])),
        dissolved=recording.dissolved,
        missed=missed,
        detached=cuts.found,
        hooked=hooked,
        whole=whole,
    )


def _nothing(inputs: tuple[Any, ...]) -> ValueError:
    kinds = sorted({named(a.dtype) for a in tensors(inputs)}) or ["no tensor"]
    return ValueError(
        "verify_torch: nothing to differentiate: no parameter requires a gradient and no input "
        f"is floating; found {', '.join(kinds)}. Pass floating tensors as arguments."
    )


def _whole(fn: Any, leaves: dict[str, Any], apply: Callable[..., Any], random: Any) -> Whole:
    """The program as one place."""
    module = fn if isinstance(fn, torch.nn.Module) else None
    return Whole(
        rule=type(fn).__name__ if module is not None else getattr(fn, "__name__", "program"),
        kind="program",
        source=definition(getattr(getattr(fn, "forward", fn), "__code__", None), ""),
        args=[a.detach().clone() for a in leaves.values()],
        groups=[(i,) for i in range(len(leaves))],
        labels=list(leaves),
        apply=apply,
        body=None,
        random=random,
        own={i: p for i, p in enumerate(leaves.values()) if isinstance(p, torch.nn.Parameter)},
        still={name: row for name, row in padded(module).items() if name in leaves},
    )


def _backward(outs: list[Any], leaves: dict[str, Any], r: list[Any], recording: Recording) -> Any:
    """The gradient of `<r, outs>`, with `.grad` left as it was."""
    again = applying(recording.applied) if reentrant(outs) else contextlib.nullcontext()
    try:
        with again, _aside(recording.grads):
            return pulled_back(outs, list(leaves.values()), r)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise ValueError(f"verify_torch: the backward pass does not run: {why}") from error


def _weights(a: Any, scalar: bool, seed: int) -> Any:
    """The costate of an output: 1 for a cost, else random."""
    if scalar:
        return torch.ones_like(a)
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(a.shape, generator=draw, dtype=torch.float64).to(a.device, a.dtype)


def _missed(outs: list[Any], recording: Recording) -> list[str]:
    """Names of the graph's custom nodes that no place stands for."""
    found = set()
    for node in nodes(outs):
        custom = isinstance(node, torch.autograd.function.BackwardCFunction)
        if (custom and node not in recording.nodes) or type(node).__name__ == "CppFunction":
            found.add(node.name())
    return sorted(found)


@contextlib.contextmanager
def _aside(grads: dict[int, Any]) -> Iterator[None]:
    """`.grad` of every leaf that the program met is afterwards what it was."""
    for a, _ in grads.values():
        a.grad = None
    try:
        yield
    finally:
        for a, g in grads.values():
            a.grad = g


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
