"""One place of a PyTorch program, run alone: its rule by `torch.autograd.grad`; its body (`forward` with
a context that keeps nothing) by reverse mode of what PyTorch itself differentiates, rules inside it set
aside. Arrays enter and leave; `alone` judges them.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.autograd.function import BackwardCFunction  # pyright: ignore[reportMissingImports]

from hjcontrol.verification.gaps import UNITS, largest, relative
from hjcontrol.verification.naming import Source
from hjcontrol.verification.place_alone import Alone, Arrays
from hjcontrol.verification.torch_replay import Decisions, in_float64, set_aside, shaken
from hjcontrol.verification.torch_trees import (
    array,
    floats,
    is_float,
    lowest_of,
    named,
    pulled_back,
    tensor,
    widened,
)

called = torch.func.functional_call
unnoted = torch._C.DisableTorchFunction  # what is done inside is no operation of the program's


@dataclasses.dataclass(eq=False)
class Place:
    """One application. `apply`: under the rule; `body`: without it, `None` for a module, whose body is
    judged by its values; `inputs`: positions of the arguments that are judged, those that are the same
    tensor together; `own`: the parameters among them, which modules among the arguments may hold."""

    rule: str
    kind: str
    source: Source
    args: list[Any]
    groups: list[tuple[int, ...]]
    labels: list[str]
    apply: Callable[..., Any]
    body: Callable[..., Any] | None
    random: Any
    own: dict[int, Any] = dataclasses.field(default_factory=dict)
    outputs: list[Any] = dataclasses.field(default_factory=list)
    live: list[bool] = dataclasses.field(default_factory=list)
    costates: dict[int, Any] = dataclasses.field(default_factory=dict)
    pulled: list[Any] = dataclasses.field(default_factory=list)  # one list a backward pass

    def recorded(self) -> Arrays:
        """Its floating outputs when the program ran."""
        return [array(a) for a in self.outputs]

    def arrived(self) -> Arrays:
        """The costates that reached them in float64, so that they can be scaled; zeros where none did."""
        found = []
        for k, y in enumerate(self.outputs):
            p = self.costates.get(k)
            p = torch.zeros_like(y) if p is None else p
            found.append(array(p.to(widened(p.dtype))))
        return found

    def costate(self) -> float:
        """Largest element of the costates that arrived."""
        return max([largest(a) for a in self.arrived()], default=0.0)

    def keep(self, out: Any, backward: bool) -> None:
        """Keep the outputs, and a hook on each for its costate."""
        outs = floats(out)
        self.outputs = [a.detach().clone() for a in outs]
        self.live = [a.requires_grad or not backward for a in outs]
        for k, a in enumerate(outs):
            if a.requires_grad and backward:
                a.register_hook(functools.partial(self._arrive, k))

        made = (a.grad_fn for a in outs if backward)
        node = next((n for n in made if isinstance(n, BackwardCFunction)), None)
        if node is not None:
            node.register_hook(self._depart)

    def _arrive(self, k: int, p: Any) -> None:
        if p is None:  # an output that the program does not use
            return
        with unnoted():
            self.costates[k] = p.detach().clone() + self.costates.get(k, 0)

    def _depart(self, found: Any, arrived: Any) -> None:
        with unnoted():
            self.pulled.append([None if g is None else g.detach().clone() for g in found])

    def restless(self) -> bool:
        """Whether the rule, run again at the costates that arrived, gives another result than in the
        program; only one backward pass can be compared."""
        at = [i for i, a in enumerate(self.args) if isinstance(a, torch.Tensor)]
        if len(self.pulled) != 1 or len(self.pulled[0]) != len(at):
            return False
        before = dict(zip(at, self.pulled[0], strict=True))
        dtypes = [self.args[g[0]].dtype for g in self.groups]
        x = [array(self.args[g[0]]) for g in self.groups]
        with torch.enable_grad(), self._run(self.apply, x, dtypes, grad=True) as (out, leaves):
            kept = {k: p.clone() for k, p in self.costates.items()}  # which the rule may write on
            pairs = [(y, kept[k]) for k, y in enumerate(floats(out)) if k in kept]
            if not pairs:
                return False
            ys, r = zip(*pairs, strict=True)
            again = pulled_back(ys, leaves, r)
        for group, g in zip(self.groups, again, strict=True):
            then = [before[i] for i in group]
            if g is None or any(p is None for p in then):
                continue
            eps = torch.finfo(lowest_of([g.dtype, *(y.dtype for y in ys)])).eps
            if relative(array(g), array(sum(then))) > UNITS * eps:
                return True
        return False

    @property
    def arithmetic(self) -> str:
        """The coarsest dtype among its arguments and outputs."""
        return named(lowest_of([a.dtype for a in floats([self.args, self.outputs])]))

    # ------------------------------------------------------------------ alone

    def alone(
        self, wide: bool = False, ends: dict[Any, bool] | None = None, sweeps: int = 0
    ) -> Alone:
        """The place on its own, `wide` in float64; loops in `ends` go on for so many `sweeps`."""
        firsts = [self.args[g[0]] for g in self.groups]
        dtypes = [widened(a.dtype) if wide else a.dtype for a in firsts]
        x = [array(a) for a in firsts]
        if wide:
            x = [a.astype(np.complex128 if np.iscomplexobj(a) else np.float64) for a in x]
        lowest = lowest_of([*dtypes, *(a.dtype for a in self.outputs if not wide)])
        aside = contextlib.nullcontext if self.body is None else set_aside

        def run(f: Any, moved: Arrays, grad: bool, told: Decisions | None = None) -> Any:
            told = told or Decisions(ends, sweeps)
            return self._run(f, moved, dtypes, grad=grad, wide=wide, told=told)

        def values(moved: Arrays) -> Arrays:
            f, graph = self.body or self.apply, self.body is None
            with self._mode(), aside(), run(f, moved, graph) as (out, _):
                return [array(a) for a in floats(out)]

        def applied() -> Arrays:
            with self._mode(), run(self.apply, x, self.body is None) as (out, _):
                return [array(a) for a in floats(out)]

        def rule(r: Arrays, told: Decisions | None = None) -> Arrays:
            with torch.enable_grad(), run(self.apply, x, True, told) as (out, leaves):
                return _pulled(out, leaves, r)

        def further(n: int) -> Alone | None:
            first = Decisions()
            r = [np.ones(tuple(a.shape)) for a in self.outputs]
            rule(r, first)
            on = Decisions(first.ended(), n)
            rule(r, on)
            longer = {k: end for k, end in on.ends.items() if len(on.told[k]) > len(first.told[k])}
            return self.alone(wide, longer, n) if longer else None

        def derivative(r: Arrays, salt: int) -> Arrays:
            if self.body is None:
                return [None] * len(x)
            try:
                own = run(self.body, x, True)
                with torch.enable_grad(), set_aside(), shaken(salt), own as (out, leaves):
                    return _pulled(out, leaves, r)
            except Exception:  # the body is the user's; PyTorch cannot differentiate it
                return [None] * len(x)

        return Alone(
            x=x,
            values=values,
            applied=applied,
            rule=rule,
            derivative=derivative,
            live=self.live,
            wide=lambda: None if wide else self._wide(),
            arithmetic=named(lowest),
            eps=float(torch.finfo(lowest).eps),
            further=further,
        )

    def _mode(self) -> Any:
        """A rule's `forward` runs without gradients; a module's may ask for them."""
        return torch.enable_grad() if self.body is None else torch.no_grad()

    def _wide(self) -> Alone | None:
        """The place in float64, if its outputs then are."""
        try:
            alone = self.alone(wide=True)
            outs = alone.applied()
            alone.rule([np.zeros_like(a) for a in outs])
        except Exception:  # a kernel that refuses float64
            return None
        fine = (np.dtype(np.float64), np.dtype(np.complex128))
        sizes = [a.shape for a in outs] == [tuple(a.shape) for a in self.outputs]
        return alone if sizes and all(a.dtype in fine for a in outs) else None

    @contextlib.contextmanager
    def _run(
        self,
        f: Callable[..., Any],
        x: Arrays,
        dtypes: list[Any],
        *,
        grad: bool,
        wide: bool = False,
        told: Decisions | None = None,
    ) -> Iterator[tuple[Any, list[Any]]]:
        """The result for `x`, and the leaves that stand for it, while they hold it."""
        args = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in self.args]
        if wide:
            args = [a.to(widened(a.dtype)) if is_float(a) else a for a in args]
        leaves = []
        with contextlib.ExitStack() as stack:
            for a, group, dtype in zip(x, self.groups, dtypes, strict=True):
                moved, own = tensor(a, self.args[group[0]], dtype), self.own.get(group[0])
                if own is None:
                    leaf = moved.requires_grad_(grad)
                    given = leaf.clone()  # which may be written on
                else:
                    leaf = given = stack.enter_context(_holding(own, moved, grad))
                leaves.append(leaf)
                for i in group:
                    args[i] = given
            stack.enter_context(torch.random.fork_rng())
            _restore(self.random)
            if wide:
                stack.enter_context(in_float64())
            stack.enter_context(told or Decisions())
            yield f(*args), leaves


@contextlib.contextmanager
def _holding(leaf: Any, moved: Any, grad: bool) -> Iterator[Any]:
    """A parameter that holds other numbers for a while, for modules among the arguments read it too."""
    before, wanted = leaf.data, leaf.requires_grad
    leaf.data = moved
    leaf.requires_grad_(grad)
    try:
        yield leaf
    finally:
        leaf.data = before
        leaf.requires_grad_(wanted)


def _pulled(out: Any, leaves: list[Any], r: Arrays) -> Arrays:
    pairs = [(y, w) for y, w in zip(floats(out), r, strict=True) if y.requires_grad]
    if not pairs:
        return [None] * len(leaves)
    found = pulled_back([y for y, _ in pairs], leaves, [tensor(w, y, y.dtype) for y, w in pairs])
    return [None if g is None else array(g) for g in found]


def random_state() -> Any:
    """What PyTorch's next random numbers depend on."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda


def _restore(state: Any) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])
