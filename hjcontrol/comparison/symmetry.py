r"""Relabellings of hidden units: which solutions are one solution.

    x -> s * x[pi]   at every depth that shares a labelling,      s in {-1, +1}^d where allowed

Two states share a labelling when a stage ties them (residual stages do); the inputs and the outputs
keep theirs. A sign may flip where every stage that produces the state is odd. The relabelling that
brings `b` closest to `a` minimises sum over the ensemble and the tied depths of |a - s b[pi]|^2: an
assignment problem, solved exactly. Units that are equal on the whole ensemble (two dead ones, say)
cannot be told apart by it.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.arguments import admits
from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.networks import Chain, Weights


class Labelling(NamedTuple):
    """`x -> signs * x[permutation]` of one state's coordinates."""

    permutation: np.ndarray
    signs: np.ndarray


class Group(NamedTuple):
    """Depths whose states share one free labelling, and whether signs may flip."""

    depths: tuple[int, ...]
    odd: bool


def groups(chain: Chain) -> list[Group]:
    """The free labellings of a chain, from what its stages declare."""
    depth = len(chain)
    label = list(range(depth + 1))
    fixed = {0, depth}
    odd = [True] * (depth + 1)
    for k in range(depth):
        symmetry = chain[k].symmetry()
        if symmetry is None:
            fixed |= {k, k + 1}
            continue
        odd[k + 1] = symmetry.odd
        if symmetry.tied:
            old, new = label[k + 1], label[k]
            label = [new if name == old else name for name in label]
    members = {name: [k for k in range(depth + 1) if label[k] == name] for name in label}
    return [
        Group(tuple(ks), all(odd[k] for k in ks))
        for ks in members.values()
        if not fixed.intersection(ks)
    ]


@admits()
def match(problem: ControlProblem, a: Trajectory, b: Trajectory) -> list[Labelling]:
    """For each depth 0..K, the labelling of `b` that brings it closest to `a`."""
    from scipy.optimize import linear_sum_assignment

    labellings = [_unchanged(a[k]) for k in range(len(a))]
    for group in groups(problem.chain):
        u = np.concatenate([np.asarray(a[k]) for k in group.depths])
        v = np.concatenate([np.asarray(b[k]) for k in group.depths])
        cross = u.T @ v
        gain = np.abs(cross) if group.odd else cross
        square = (u**2).sum(0)[:, None] + (v**2).sum(0)[None, :]
        _, permutation = linear_sum_assignment(square - 2 * gain)
        chosen = cross[np.arange(len(permutation)), permutation]
        signs = np.where((chosen < 0) & group.odd, -1.0, 1.0)
        for k in group.depths:
            labellings[k] = Labelling(permutation, signs)
    return labellings


@admits()
def relabel(chain: Chain, weights: Weights, labellings: list[Labelling]) -> Weights:
    """The same network with its states relabelled: equal outputs, other weights."""
    moved = tuple(chain[k].symmetry() is not None for k in range(len(chain)))
    return _relabelled(chain, weights, labellings, moved)


@eqx.filter_jit
def _relabelled(
    chain: Chain, weights: Weights, labellings: list[Any], moved: tuple[bool, ...]
) -> Weights:
    thetas = []
    for k, theta in enumerate(chain.unstack(weights)):
        stage = chain[k]
        if not moved[k]:
            thetas.append(theta)
        else:
            dtype = jnp.result_type(*jax.tree.leaves(theta))
            inward, outward = (
                (one.permutation, jnp.asarray(one.signs, dtype)) for one in labellings[k : k + 2]
            )
            thetas.append(stage.relabel(theta, inward, outward))
    return chain.stack(thetas)


def relabel_states(states: Trajectory, labellings: list[Labelling]) -> list[np.ndarray]:
    """States or costates in the new labels, one array `(n, d)` a depth."""
    return [
        np.asarray(states[k])[..., one.permutation] * one.signs for k, one in enumerate(labellings)
    ]


def _unchanged(state) -> Labelling:
    size = np.shape(jax.tree.leaves(state)[0])[-1]
    return Labelling(np.arange(size), np.ones(size))
