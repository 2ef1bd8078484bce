"""A PyTorch program as one place: its leaves strung together to one argument, judged by its values."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from hjcontrol.verification.place_alone import Alone, Arrays
from hjcontrol.verification.torch_places import Place, called
from hjcontrol.verification.torch_trees import is_float, mapped, named, tensors, widened


def restated(
    fn: Callable[..., Any],
    module: Any,
    parameters: dict[str, Any],
    leaves: dict[str, Any],
    inputs: tuple[Any, ...],
) -> Callable[..., Any]:
    """The program as a function of its leaves."""

    def call(*moved: Any) -> Any:
        state = dict(zip(leaves, moved, strict=True))
        wide = named(moved[0].dtype) in ("float64", "complex128")

        def cast(a: Any) -> Any:
            return a.detach().to(widened(a.dtype) if wide and is_float(a) else a.dtype, copy=True)

        order = iter(range(len(list(tensors(inputs)))))

        def chosen(a: Any) -> Any:
            name = f"input {next(order)}"
            return state[name] if name in state else cast(a)

        given = mapped(chosen, inputs)
        if module is None:
            return fn(*given)
        held = {k: state.get(k, cast(p)) for k, p in parameters.items()}
        held |= {k: cast(b) for k, b in module.named_buffers()}
        return called(module, held, given)

    return call


def padded(module: Any) -> dict[str, int]:
    """The rows that embeddings are told not to train, by the name of their weights."""
    parts = [] if module is None else module.named_modules()
    embeds = lambda part: any(c.__module__ == "torch.nn.modules.sparse" for c in type(part).__mro__)
    rows = {name: part.padding_idx for name, part in parts if embeds(part)}
    return {f"{name}.weight".lstrip("."): row for name, row in rows.items() if row is not None}


@dataclasses.dataclass(eq=False)
class Whole(Place):
    """The program, its leaves strung together to one argument. `still`: rows of leaves that are not
    moved, for they are to have no derivative."""

    still: dict[str, int] = dataclasses.field(default_factory=dict)

    def leaf_of(self, index: tuple[int, ...] | None) -> tuple[str, tuple[int, ...] | None]:
        """Name and element of an entry of the string."""
        at = index[0] if index else 0
        for name, a in zip(self.labels, self.args, strict=True):
            if at < a.numel():
                return name, tuple(int(i) for i in np.unravel_index(at, tuple(a.shape) or (1,)))
            at -= a.numel()
        return "", None

    def alone(
        self, wide: bool = False, ends: dict[Any, bool] | None = None, sweeps: int = 0
    ) -> Alone:
        """All leaves as one."""
        return self._strung(super().alone(wide, ends, sweeps))

    def _strung(self, each: Alone) -> Alone:
        ends = np.cumsum([a.size for a in each.x])[:-1]

        def parts(x: Arrays) -> Arrays:
            pairs = zip(each.x, np.split(x[0], ends), strict=True)
            found = [part.reshape(a.shape).astype(a.dtype) for a, part in pairs]
            for name, row in self.still.items():
                k = self.labels.index(name)
                found[k] = found[k].copy()
                found[k][row] = each.x[k][row]
            return found

        def joined(x: Arrays) -> Arrays:
            filled = [np.zeros_like(a) if g is None else g for a, g in zip(each.x, x, strict=True)]
            return [np.concatenate([np.ravel(a) for a in filled])]

        return dataclasses.replace(
            each,
            x=joined(each.x),
            patience=2,
            directions=1,  # some forty forward passes
            values=lambda x: each.values(parts(x)),
            rule=lambda r: joined(each.rule(r)),
            derivative=lambda r, salt: [None],
        )
