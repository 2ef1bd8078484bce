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
from torch.overrides import TorchFunctionMode  # pyright: ignore[reportMissingImports]

from hjcontrol.verification.alone import Alone, Arrays
from hjcontrol.verification.gaps import UNITS, largest, relative
from hjcontrol.verification.naming import Source

Function = torch.autograd.Function
Level = Function.__bases__[0]  # whose `apply` every application ends in
called = torch.func.functional_call
unnoted = torch._C.DisableTorchFunction  # what is done inside is no operation of the program's


# ------------------------------------------------------------------ trees


def tensors(tree: Any) -> Iterator[Any]:
    """The tensors of nested tuples, lists and dicts."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from tensors(item)
    elif isinstance(tree, dict):
        yield from tensors(list(tree.values()))


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
    return tree


def is_float(a: Any) -> bool:
    """Whether a costate of it exists."""
    return isinstance(a, torch.Tensor) and (a.is_floating_point() or a.is_complex())


def floats(tree: Any) -> list[Any]:
    """The floating tensors of a tree."""
    return [a for a in tensors(tree) if is_float(a)]


def array(a: Any) -> np.ndarray:
    """A tensor on the host; below float32 as float32, which holds it."""
    a = a.detach().resolve_conj().cpu()
    return np.array((a.float() if a.dtype in (torch.bfloat16, torch.float16) else a).numpy())


def _tensor(a: Any, like: Any, dtype: Any) -> Any:
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


# ------------------------------------------------------------------ one place


@dataclasses.dataclass(eq=False)
class Place:
    """One application. `apply`: under the rule; `body`: without it, `None` for a module, whose body is
    judged by its values; `inputs`: positions of the arguments that are judged, those that are the same
    tensor together."""

    rule: str
    kind: str
    source: Source
    args: list[Any]
    groups: list[tuple[int, ...]]
    labels: list[str]
    apply: Callable[..., Any]
    body: Callable[..., Any] | None
    random: Any
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
        with torch.enable_grad():
            out, leaves = self._run(self.apply, x, wide=False, dtypes=dtypes, grad=True)
            kept = {k: p.clone() for k, p in self.costates.items()}  # which the rule may write on
            pairs = [(y, kept[k]) for k, y in enumerate(floats(out)) if k in kept]
            if not pairs:
                return False
            ys, r = zip(*pairs, strict=True)
            again = torch.autograd.grad(ys, leaves, r, allow_unused=True)
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

    def alone(self, wide: bool = False) -> Alone:
        """The place on its own, in float64 if it is `wide`."""
        firsts = [self.args[g[0]] for g in self.groups]
        dtypes = [widened(a.dtype) if wide else a.dtype for a in firsts]
        x = [array(a) for a in firsts]
        if wide:
            x = [a.astype(np.complex128 if np.iscomplexobj(a) else np.float64) for a in x]
        lowest = lowest_of([*dtypes, *(a.dtype for a in self.outputs if not wide)])
        run = functools.partial(self._run, wide=wide, dtypes=dtypes)

        def values(moved: Arrays) -> Arrays:
            with self._mode(), contextlib.nullcontext() if self.body is None else _set_aside():
                outs = run(self.body or self.apply, moved, grad=self.body is None)[0]
                return [array(a) for a in floats(outs)]

        def applied() -> Arrays:
            with self._mode():
                return [array(a) for a in floats(run(self.apply, x, grad=self.body is None)[0])]

        def rule(r: Arrays) -> Arrays:
            with torch.enable_grad():
                return _pulled(*run(self.apply, x, grad=True), r)

        def derivative(r: Arrays, salt: int) -> Arrays:
            if self.body is None:
                return [None] * len(x)
            try:
                with torch.enable_grad(), _set_aside(), _shaken(salt):
                    return _pulled(*run(self.body, x, grad=True), r)
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

    def _run(
        self, f: Callable[..., Any], x: Arrays, *, wide: bool, dtypes: list[Any], grad: bool = False
    ) -> tuple[Any, list[Any]]:
        """The result for `x`, and the leaves that stand for it."""
        args = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in self.args]
        if wide:
            args = [a.to(widened(a.dtype)) if is_float(a) else a for a in args]
        leaves = []
        for a, group, dtype in zip(x, self.groups, dtypes, strict=True):
            leaf = _tensor(a, self.args[group[0]], dtype).requires_grad_(grad)
            leaves.append(leaf)
            given = leaf.clone()  # which may be written on
            for i in group:
                args[i] = given
        with torch.random.fork_rng():
            _restore(self.random)
            return f(*args), leaves


def _pulled(out: Any, leaves: list[Any], r: Arrays) -> Arrays:
    pairs = [(y, w) for y, w in zip(floats(out), r, strict=True) if y.requires_grad]
    if not pairs:
        return [None] * len(leaves)
    given = [_tensor(w, y, y.dtype) for y, w in pairs]
    found = torch.autograd.grad([y for y, _ in pairs], leaves, given, allow_unused=True)
    return [None if g is None else array(g) for g in found]


def random_state() -> Any:
    """What PyTorch's next random numbers depend on."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda


def _restore(state: Any) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])


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
    whole, level = Function.__dict__["apply"], Level.__dict__.get("apply")

    def transformed(rule: Any, *args: Any, **kwargs: Any) -> Any:
        """A transform of `torch.func` never comes to the level."""
        if torch._C._are_functorch_transforms_active():
            return apply(whole.__func__, rule, *args, **kwargs)
        return whole.__func__(rule, *args, **kwargs)

    def met(rule: Any, *args: Any, **kwargs: Any) -> Any:
        return apply(_below, rule, *args, **kwargs)

    Function.apply, Level.apply = classmethod(transformed), classmethod(met)
    try:
        yield
    finally:
        Function.apply = whole
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


def _set_aside() -> Any:
    return applying(_aside)


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


def _shaken(salt: int) -> Any:
    return _Roundoff(salt) if salt else contextlib.nullcontext()
