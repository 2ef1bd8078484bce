"""States of an ensemble along its depth, and anything that is shaped like them.

    runs[r]   inputs of the stages of run r, every leaf (samples, length, ...)
    final     what leaves the last stage,    every leaf (samples, ...)

A costate has the same shape: `p_k = dJ/dx_k`, the 1/n of the mean included.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from hjcontrol._ground.shown import Shown
from hjcontrol._ground.trees import Tree
from hjcontrol.networks.chain import Chain


class Trajectory(Shown):
    """States `x_0 .. x_K` (or costates `p_0 .. p_K`): `len` is K + 1, `[k]` the ensemble at depth k."""

    runs: tuple[Tree, ...]
    final: Tree

    def __len__(self) -> int:
        return 1 + sum(jax.tree.leaves(run)[0].shape[1] for run in self.runs)

    def __getitem__(self, k: int) -> Tree:
        depth = len(self) - 1
        if k < 0:
            k += depth + 1
        if k == depth:
            return self.final
        place = k
        for run in self.runs:
            length = jax.tree.leaves(run)[0].shape[1]
            if 0 <= place < length:
                return jax.tree.map(lambda a, place=place: a[:, place], run)
            place -= length
        raise IndexError(f"a trajectory of {depth + 1} states has no state {k}")

    def __iter__(self) -> Iterator[Tree]:
        return (self[k] for k in range(len(self)))


def by_runs(chain: Chain, each: Sequence[Tree]) -> tuple[Tree, ...]:
    """One tree a stage, leaves `(n, ...)`, stacked by runs: `(n, length, ...)` each."""
    stacked, runs, k = lambda *leaves: jnp.stack(leaves, axis=1), [], 0
    for run in chain.runs:
        runs.append(jax.tree.map(stacked, *each[k : k + run.length]))
        k += run.length
    return tuple(runs)


def swapped(tree: Tree) -> Tree:
    """Leaves `(samples, length, ...)` as `(length, samples, ...)`, and back."""
    return jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), tree)
