"""Composition: a chain of stages, stored as runs of equal ones.

    x_{k+1} = F_k(x_k, theta_k, u_k),   k = 0 .. K-1

Neighbouring stages of one kind (same code, same shapes, state kept) form a *run*: their array leaves
and weights are stacked on a leading axis and scanned, so compile time does not grow with depth.
`weights` has one entry a run, every leaf with its sets in front: one a stage, or one if it is `Tied`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.by_shape import once_per_shape
from hjcontrol._ground.concrete import known
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.trees import Tree
from hjcontrol.networks.given import Given, read_of, reference_of
from hjcontrol.networks.grouping import grouped, in_shapes
from hjcontrol.networks.stage import AbstractStage, advance, as_stage

Weights = tuple[Tree, ...]


@admits(times=">= 1")
class Tied(Shown):
    """One stage applied `times` times with the same weights: what a recurrence is made of.

    `dJ/dtheta = sum over its steps of dH_k/dtheta`, and a cost of the weights is paid once.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> chain = hj.networks.Chain([hj.networks.Tied(hj.networks.Dense(2, 2), 5)], jnp.zeros(2))
        >>> chain.runs[0].length, chain.init(jax.random.key(0))[0].W.shape
        (5, (1, 2, 2))
    """

    stage: AbstractStage
    times: int = eqx.field(static=True)

    def __init__(self, piece: Any, times: int):
        self.stage, self.times = as_stage(piece), int(times)


@admits(length=">= 1")
class Run(Shown):
    """`length` equal stages; array leaves of `stage` carry a leading axis of `sets`."""

    stage: AbstractStage
    length: int = eqx.field(static=True)
    tied: bool = eqx.field(static=True, default=False)

    @property
    def sets(self) -> int:
        """How many sets of weights: one per stage, or one for all."""
        return 1 if self.tied else self.length

    def scan(
        self,
        body: Callable[[Any, AbstractStage, Any, Any, Any], tuple[Any, Any]],
        carry: Any,
        theta: Any,
        xs: Any = None,
        given: Any = None,
        reverse: bool = False,
    ) -> tuple[Any, Any]:
        """Fold `body(carry, stage_k, theta_k, u_k, xs_k) -> (carry, out_k)` over the run's stages.

        `theta`: weights, or whatever there is one of a set, `sets` in front; `xs`: one entry a stage;
        `given`: what the stage reads, a forcing with one entry a stage; in a `Given`, also what costs
        read, one entry a stage.
        """
        arrays, static = eqx.partition(self.stage, eqx.is_array)
        forced = self.stage.reads == "forcing"
        paired, read = isinstance(given, Given), read_of(given)
        beside = (read if forced else None, reference_of(given))
        scanned = (None if self.tied else (arrays, theta), beside, xs)
        held = jax.tree.map(lambda a: a[0], (arrays, theta)) if self.tied else None

        def step(c: Any, slices: Any) -> tuple[Any, Any]:
            own, (u, reference), x = slices
            stage_arrays, th = own if held is None else held
            u = u if forced else read
            u = Given(u, reference) if paired else u
            return body(c, eqx.combine(stage_arrays, static), th, u, x)

        if self.length == 1:  # no loop for a lone stage
            carry, out = step(carry, jax.tree.map(lambda a: a[0], scanned))
            return carry, jax.tree.map(lambda a: jnp.asarray(a)[None], out)
        return jax.lax.scan(step, carry, scanned, length=self.length, reverse=reverse)

    def gather(self, by_stage: PyTree[Array]) -> PyTree[Array]:
        """From one entry a stage to one a set of weights: tied stages are summed."""
        if not self.tied:
            return by_stage
        return jax.tree.map(lambda a: jnp.sum(a, axis=0, keepdims=True), by_stage)

    def place(self, by_set: Float[Array, " sets"]) -> Float[Array, " stages"]:
        """From one number per set of weights to one per stage: that of a tied run stands at its first."""
        return jnp.concatenate([by_set, jnp.zeros(self.length - self.sets, by_set.dtype)])

    def __getitem__(self, k: int) -> AbstractStage:
        k = 0 if self.tied else k
        return jax.tree.map(lambda a: a[k] if eqx.is_array(a) else a, self.stage)


@admits()
class Chain(Shown):
    """Stages in order of depth. `len(chain)` is the number of stages, `chain[k]` the k-th."""

    runs: tuple[Run, ...]

    def __init__(
        self, stages: Sequence[Any], state: PyTree, forcing: PyTree = None, context: PyTree = None
    ):
        """**Arguments:** `stages`: stages, pieces that `as_stage` accepts, or `Tied` ones; `state`: one
        sample's input, arrays or `jax.ShapeDtypeStruct`s, from which every later state's shape follows;
        `forcing`, `context`: one sample's, for stages that read them.

        **Raises:** `ValueError` for no stages, a stage that does not accept its state, a tied stage
        that changes its state's shape, or given data that no stage or too few of them read.
        """
        pieces = [(s.stage, s.times) if isinstance(s, Tied) else (as_stage(s), 0) for s in stages]
        if not pieces:
            raise ValueError("Chain: at least one stage is needed; found none.")
        self.runs = tuple(
            Run(*run) for run in grouped(pieces, *map(in_shapes, (state, forcing, context)))
        )

    def check_weights(self, who: str, weights: Any) -> None:
        """Refuse weights that are not shaped as `init` draws them.

        **Raises:** `ValueError` naming the first leaf that differs, with both shapes.
        """
        want, have = _shapes(self.drawn()), _shapes(weights)
        for path in dict.fromkeys([*want, *have]):
            if want.get(path) != have.get(path):
                raise ValueError(
                    f"{who}: `weights` must be shaped as `init` draws them: {path or 'they'} must be "
                    f"{want.get(path, 'absent')}; found {have.get(path, 'nothing there')}."
                )

    def drawn(self) -> Any:
        """Shapes and dtypes of what `init` draws."""
        return _drawn(self)

    def __len__(self) -> int:
        return sum(run.length for run in self.runs)

    def __getitem__(self, k: int) -> AbstractStage:
        for run in self.runs:
            if 0 <= k < run.length:
                return run[k]
            k -= run.length
        raise IndexError("stage index out of range")

    def init(self, key: Key[Array, ""]) -> Weights:
        """Weights to start from; stage `k` draws from the `k`-th key of `jax.random.split`."""
        keys = jax.random.split(key, len(self))
        starts = itertools.accumulate((r.length for r in self.runs), initial=0)
        return tuple(
            eqx.filter_vmap(lambda stage, k: stage.init(k))(run.stage, keys[a : a + run.sets])
            for run, a in zip(self.runs, starts, strict=False)
        )

    def given(self, forcing: PyTree, context: PyTree, samples: bool) -> tuple[PyTree, ...]:
        """What the stages of each run read: forcing with one entry a stage, context, or `None`.

        `samples`: whether the leaves have the samples in front.
        """
        cut = lambda a, start, length: jax.lax.slice_in_dim(
            a, start, start + length, axis=int(samples)
        )
        found, start = [], 0
        for run in self.runs:
            reads = run.stage.reads
            if reads == "forcing":
                part = lambda a, start=start, run=run: cut(a, start, run.length)
                found.append(jax.tree.map(part, forcing))
                start += run.length
            else:
                found.append(context if reads == "context" else None)
        return tuple(found)

    def unstack(self, weights: Weights) -> list[PyTree[Array]]:
        """Weights as a list with one entry a stage; tied ones repeat."""
        return [
            jax.tree.map(lambda a, k=k: a[k], theta)
            for run, theta in zip(self.runs, weights, strict=True)
            for k in (range(run.length) if not run.tied else [0] * run.length)
        ]

    def stack(self, thetas: Sequence[PyTree[Array]]) -> Weights:
        """The inverse of `unstack`.

        **Raises:** `ValueError` for another number of entries, or tied stages' weights known to differ.
        """
        if len(thetas) != len(self):
            raise ValueError(
                f"stack: one entry a stage is needed, {len(self)}; found {len(thetas)}."
            )
        it, stacked, k = iter(thetas), [], 0
        for run in self.runs:
            own = list(itertools.islice(it, run.length))
            if run.tied and not all(_same(own[0], other) for other in own[1:]):
                raise ValueError(
                    f"stack: stages {k} to {k + run.length - 1} are tied, so their weights must be "
                    "equal; found weights that differ. State them as untied stages instead."
                )
            stacked.append(jax.tree.map(lambda *a: jnp.stack(a), *own[: run.sets]))
            k += run.length
        return tuple(stacked)

    def states(
        self, weights: Weights, x: PyTree[Array], given: tuple[PyTree, ...] | None = None
    ) -> tuple[tuple[PyTree, ...], PyTree]:
        """One sample's states: for each run the inputs of its stages, stacked; and the final state."""
        body = lambda r, x, stage, th, u: (advance(stage, x, th, u), x)
        x, runs = self.fold(body, x, weights, given=given)
        return runs, x

    def __call__(
        self, weights: Weights, x: PyTree[Array], given: tuple[PyTree, ...] | None = None
    ) -> PyTree[Array]:
        """One sample's final state. `given`: what its stages read, as the method `given` returns it."""
        body = lambda r, x, stage, th, u: (advance(stage, x, th, u), None)
        return self.fold(body, x, weights, given=given)[0]

    def fold(
        self,
        body: Callable[..., tuple[Any, Any]],
        carry: Any,
        weights: Weights,
        *along: tuple[PyTree[Array], ...],
        given: tuple[PyTree, ...] | None = None,
        reverse: bool = False,
    ) -> tuple[Any, tuple[PyTree[Array], ...]]:
        """Fold a body over all stages in order of depth, or against it.

        **Arguments:**

        - `body(r, carry, stage, theta, u, *slices) -> (carry, out)`: one stage, of run `r`. It must
          take from `r`, not from a variable of its surroundings, what differs from run to run.
        - `weights`: one entry a run, every leaf with the run's weight sets in front.
        - `along`: further arrays, one entry a run, every leaf with the run's stages in front.
        - `given`: what the stages read, as the method `given` returns it.
        - `reverse`: from the last stage to the first.

        **Returns:** the last carry, and the outputs in order of depth: one entry a run, every leaf with
        the run's stages in front.
        """
        given = (None,) * len(self.runs) if given is None else given
        parts = list(enumerate(zip(self.runs, weights, given, *along, strict=True)))
        outs = []
        for r, (run, theta, u, *slices) in reversed(parts) if reverse else parts:

            def step(carry: Any, stage: Any, th: Any, u: Any, at: Any, r: int = r) -> Any:
                return body(r, carry, stage, th, u, *at)

            carry, out = run.scan(step, carry, theta, tuple(slices), u, reverse)
            outs.append(out)
        return carry, tuple(reversed(outs) if reverse else outs)


@once_per_shape
def _drawn(chain: Chain) -> Any:
    return eqx.filter_eval_shape(lambda c: c.init(jax.random.key(0)), chain)


def _same(a: PyTree, b: PyTree) -> bool:
    """Whether two trees are equal, as far as their values are known."""
    pairs = [(known(x), known(y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]
    return all(x is None or y is None or np.array_equal(x, y) for x, y in pairs)


def _shapes(weights: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
