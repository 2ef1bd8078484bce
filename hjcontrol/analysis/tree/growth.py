r"""How the tree grows: one undecided maximum at a time, one split an inner node.

A node knows its region, the affine map that the earlier blocks have become on it, and which pieces
of each group may still win. A group's undecided pieces are pruned by linear programs; a split is
the hyperplane z_i = z_j of two that are left, chosen so that the larger side keeps as few of them
as the known witnesses allow. Nodes with most sample points go first (without points: breadth
first), so that a budget of leaves is spent where it is felt.

On a line every split is a breakpoint between neighbours: N leaves, depth ceil(log2 N). In more
dimensions a hyperplane cuts other cells too, so there are more leaves than cells.
"""

import heapq
import itertools
from typing import NamedTuple

import numpy as np

from hjcontrol.analysis.tree.piecewise import AffineBlock
from hjcontrol.analysis.tree.regions import THIN, Region, halves, interior, reached, touching

PAIRS = 400  # candidate splits looked at in one node
TRIED = 12  # of which so many are asked whether the two cells touch


class Level(NamedTuple):
    """A block as arrays, and the pieces of each of its groups."""

    W: np.ndarray
    b: np.ndarray
    groups: tuple[np.ndarray, ...]
    twos: tuple[int, ...]  # the groups of two pieces
    pairs: tuple[np.ndarray, np.ndarray]  # their first and second pieces


class Front(NamedTuple):
    """A block's pieces as maps of `x` on a region: `Z x + z`; and the hyperplanes `h.(x, 1)` between the
    pieces of each group of two, of unit length unless `flat`."""

    Z: np.ndarray
    z: np.ndarray
    h: np.ndarray
    flat: np.ndarray


class State(NamedTuple):
    """What is decided at a node."""

    region: Region
    A: np.ndarray  # the block's input is A x + c on the region
    c: np.ndarray
    block: int
    alive: tuple[np.ndarray, ...]  # pieces left in each group
    witness: dict[int, np.ndarray]  # piece -> an interior point of the region where it wins
    front: Front
    # Of the groups of two, counted among themselves, those that may be undecided
    pairs: tuple[int, ...]


class Split(NamedTuple):
    """A hyperplane `a.x + c`, `|a| = 1`, and the states on its negative and nonnegative side."""

    a: np.ndarray
    c: float
    left: State
    right: State


class Leaf(NamedTuple):
    """The affine map on a leaf, and the piece that wins where the last block is one group."""

    A: np.ndarray
    c: np.ndarray
    label: int


class Grown(NamedTuple):
    """Nodes in order of creation; `split[k]` or `leaf[k]` is there, or neither: the node is open."""

    children: list[tuple[int, int]]
    split: list[tuple[np.ndarray, float] | None]
    leaf: list[Leaf | None]


def start(blocks: tuple[AffineBlock, ...], region: Region) -> State:
    """The root: nothing decided."""
    d = blocks[0].W.shape[1]
    return _entering(region, np.eye(d), np.zeros(d), 0, _level(blocks[0]))


def _entering(region: Region, A: np.ndarray, c: np.ndarray, block: int, level: Level) -> State:
    every = tuple(range(len(level.twos)))
    return State(region, A, c, block, level.groups, {}, _front(level, A, c), every)


def grow(
    blocks: tuple[AffineBlock, ...],
    root: State,
    max_leaves: int,
    points: np.ndarray | None,
    decide: bool,
) -> Grown:
    """Split until every node is a leaf or the budget is spent."""
    levels = [_level(block) for block in blocks]
    out = Grown([(-1, -1)], [None], [None])
    order = itertools.count()
    everyone = np.arange(0 if points is None else len(points))
    heap = [(-len(everyone), 0, next(order), 0, root, everyone)]
    closed = 0
    while heap:
        _, depth, _, node, state, here = heapq.heappop(heap)
        what = _advance(levels, state, decide)
        if isinstance(what, Leaf):
            out.leaf[node] = what
            closed += 1
            continue
        if closed + len(heap) + 2 > max_leaves:
            closed += 1  # an open leaf
            continue
        out.split[node] = what.a, what.c
        out.children[node] = len(out.leaf), len(out.leaf) + 1
        right = np.zeros(0, bool) if points is None else points[here] @ what.a + what.c >= 0
        for child, inside in ((what.left, ~right), (what.right, right)):
            their = here[inside] if points is not None else here
            item = (-len(their), depth + 1, next(order), len(out.leaf), child, their)
            heapq.heappush(heap, item)
            out.children.append((-1, -1))
            out.split.append(None)
            out.leaf.append(None)
    return out


def _level(block: AffineBlock) -> Level:
    groups = tuple(np.flatnonzero(block.group == g) for g in range(block.units))
    twos = tuple(g for g, pieces in enumerate(groups) if len(pieces) == 2)
    i, j = np.array([groups[g] for g in twos], int).reshape(-1, 2).T
    return Level(block.W, block.b, groups, twos, (i, j))


def _advance(levels: list[Level], state: State, decide: bool) -> Leaf | Split:
    """Decide maxima until one needs a split or none is left."""
    while True:
        level = levels[state.block]
        Z, z = state.front.Z, state.front.z
        state = _settled(level, state.front, state)
        for g in range(len(level.groups)):
            if len(state.alive[g]) == 1:
                continue
            what = _decide(state, g, Z, z)
            if isinstance(what, Split):
                return what
            state = what
        winners = np.array([alive[0] for alive in state.alive])
        if state.block == len(levels) - 1:
            label = int(winners[0]) if len(level.groups) == 1 < len(level.b) else -1
            if decide:
                return Leaf(state.A, state.c, label)
            return Leaf(Z[winners], z[winners], label)
        block = state.block + 1
        state = _entering(state.region, Z[winners], z[winners], block, levels[block])


def _front(level: Level, A: np.ndarray, c: np.ndarray) -> Front:
    """The pieces of a block whose input is `A x + c`."""
    Z, z = level.W @ A, level.W @ c + level.b
    i, j = level.pairs
    h = np.concatenate([Z[i] - Z[j], (z[i] - z[j])[:, None]], axis=1)
    length = np.sqrt((h[:, :-1] ** 2).sum(axis=1))
    return Front(Z, z, h / np.where(length > 0, length, 1.0)[:, None], length == 0)


def _settled(level: Level, front: Front, state: State) -> State:
    """Every group of two whose hyperplane does not cut the region, by its generators or its box: all in
    one product, since none of them changes the region."""
    which = [k for k in state.pairs if len(state.alive[level.twos[k]]) == 2]
    found = reached(state.region, front.h[which]) if which else None
    if found is None:
        return state
    below, above = found
    alive, left = list(state.alive), []
    for k, down, up in zip(which, below.tolist(), above.tolist(), strict=True):
        if front.flat[k]:
            up = front.h[k, -1] >= 0
        elif down and up:
            left.append(k)
            continue
        alive[level.twos[k]] = level.pairs[0 if up else 1][k : k + 1]
    return state._replace(alive=tuple(alive), pairs=tuple(left))


def _decide(state: State, g: int, Z: np.ndarray, z: np.ndarray) -> State | Split:
    """One group: the state with its winner known, or a split between two that can win."""
    alive = state.alive[g]
    if len(alive) == 2:
        return _between(state, g, int(alive[0]), int(alive[1]), Z, z)
    state = _prune(state, g, Z, z)
    alive = state.alive[g]
    if len(alive) == 1:
        return state
    i, j = _balanced(state.region, alive, state.witness, Z, z)
    return _between(state, g, i, j, Z, z)


def _between(state: State, g: int, i: int, j: int, Z: np.ndarray, z: np.ndarray) -> State | Split:
    """Compare pieces i and j: i is out where `z_i - z_j < 0`, j elsewhere."""
    a, c = Z[i] - Z[j], float(z[i] - z[j])
    left, right = halves(state.region, a, c)
    without = lambda region, loser, sign: state._replace(
        region=region,
        alive=(*state.alive[:g], state.alive[g][state.alive[g] != loser], *state.alive[g + 1 :]),
        witness={
            k: x
            for k, x in state.witness.items()
            if k != loser and sign * (a @ x + c) > 10 * THIN * np.linalg.norm(a)
        },
    )
    if left is None or right is None:
        last = without(right, j, 1.0) if left is None else without(left, i, -1.0)
        # one comparison settles two pieces; more wait for the next
        return last if len(last.alive[g]) == 1 else _decide(last, g, Z, z)
    length = float(np.linalg.norm(a))
    if a[np.flatnonzero(a)[0]] < 0:  # written with a positive leading coefficient
        return Split(-a / length, -c / length, without(right, j, 1.0), without(left, i, -1.0))
    return Split(a / length, c / length, without(left, i, -1.0), without(right, j, 1.0))


def _prune(state: State, g: int, Z: np.ndarray, z: np.ndarray) -> State:
    """Keep the pieces that win somewhere inside the region, each with a point where it does."""
    alive, witness = state.alive[g], dict(state.witness)
    kept: list[int] = []
    for k in map(int, alive):
        if k in witness:
            kept.append(k)
            continue
        others = np.array([j for j in alive if j != k and (j in kept or j > k)], int)
        a, c = Z[k] - Z[others], z[k] - z[others]
        length = np.linalg.norm(a, axis=1)
        if np.any(
            (length == 0) & (c <= 0)
        ):  # another is never lower (of equal ones the last stays)
            continue
        a, c, length = a[length > 0], c[length > 0], length[length > 0]
        A = np.vstack([state.region.A, a / length[:, None]])
        x, depth = interior(A, np.append(state.region.c, c / length))
        if depth > THIN:
            kept.append(k)
            witness[k] = x
    if not kept:  # the region is thin: the piece that wins at its point
        kept = [int(alive[np.argmax(Z[alive] @ state.region.inside + z[alive])])]
    groups = (*state.alive[:g], np.array(kept), *state.alive[g + 1 :])
    return state._replace(alive=groups, witness=witness)


def _balanced(
    region: Region, alive: np.ndarray, witness: dict[int, np.ndarray], Z: np.ndarray, z: np.ndarray
) -> tuple[int, int]:
    """A pair whose hyperplane halves the known winners; of the best few, the first whose cells touch."""
    points = np.array([witness[k] for k in alive])
    scores = points @ Z[alive].T + z[alive]  # (witness, piece)
    first, second = np.triu_indices(len(alive), 1)
    gap = np.minimum(
        scores[first, first] - scores[first, second], scores[second, second] - scores[second, first]
    )
    # Rivals: small gap at the winner's point
    near = np.sort(np.argsort(gap, kind="stable")[:PAIRS])
    first, second = first[near], second[near]
    positive = (scores[:, first] >= scores[:, second]).sum(axis=0)
    best = np.lexsort((gap[near], np.abs(2 * positive - len(alive))))
    for k in best[:TRIED]:
        i, j = int(alive[first[k]]), int(alive[second[k]])
        others = alive[(alive != i) & (alive != j)]
        A = np.vstack([region.A, Z[i] - Z[others]])
        if touching(A, np.append(region.c, z[i] - z[others]), Z[i] - Z[j], float(z[i] - z[j])):
            return i, j
    return int(alive[first[best[0]]]), int(alive[second[best[0]]])
