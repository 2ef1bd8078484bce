r"""A network as an exact tree: oblique splits, affine leaves.

    inner node: a.x + c >= 0 goes right, |a| = 1           leaf: y = C x + e, or the class that wins there

Exact, not fitted: on every leaf the tree *is* the network. One hidden layer of n generic ReLUs in
the plane has 1 + n + n(n - 1)/2 leaves; depth multiplies them, hence a budget, and nodes left open
are said so.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Record, Told
from hjcontrol.analysis.tree.growth import Grown, grow, start
from hjcontrol.analysis.tree.piecewise import AffineBlock, piecewise_affine
from hjcontrol.analysis.tree.regions import everywhere, minimal
from hjcontrol.analysis.tree.writing import dot, from_json, rules, to_json


class ModelTree(Told):
    """Arrays over nodes, in scikit-learn's manner: `left`, `right` (-1 at a leaf), `a`, `c`; and leaves.

    `coef` (nodes, outputs, d), `intercept` (nodes, outputs), `label` (nodes,): the winning piece or
    class, -1 where there is none. `open` (nodes,): leaves that the budget left undecided.
    """

    def __init__(
        self,
        left: np.ndarray,
        right: np.ndarray,
        a: np.ndarray,
        c: np.ndarray,
        coef: np.ndarray,
        intercept: np.ndarray,
        label: np.ndarray,
        open_: np.ndarray,
        box: np.ndarray | None = None,
        decides: bool = False,
        measured: dict[str, float] | None = None,
    ):
        self.left, self.right, self.a, self.c = left, right, a, c
        self.coef, self.intercept, self.label, self.open, self.box = (
            coef,
            intercept,
            label,
            open_,
            box,
        )
        self.decides = decides  # whether labels are classes
        self.measured: dict[str, float] | None = measured  # fidelity of a tree that is not exact
        self.parent = np.full(len(left), -1)
        inner = np.flatnonzero(left >= 0)
        self.parent[left[inner]] = self.parent[right[inner]] = inner

    @property
    def leaves(self) -> np.ndarray:
        """Node numbers of the leaves, open ones too."""
        return np.flatnonzero(self.left < 0)

    @property
    def complete(self) -> bool:
        """Whether no node was left open."""
        return not self.open.any()

    @property
    def depth(self) -> int:
        """The longest path from the root."""
        deep = np.zeros(len(self.left), int)
        for k in range(1, len(self.left)):  # a parent comes before its children
            deep[k] = deep[self.parent[k]] + 1
        return int(deep.max())

    def apply(self, X: ArrayLike) -> np.ndarray:
        """The leaf of each point of `X` (n, d): node numbers (n,)."""
        return _applied(self, X)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The network's outputs (n, outputs) at points (n, d); NaN in a leaf left open."""
        return _predicted(self, X)

    def decide(self, X: ArrayLike) -> np.ndarray:
        """The winning piece or class (n,); -1 in a leaf left open or where leaves carry none."""
        return self.label[self.apply(X)]

    def resolved(self, X: ArrayLike) -> np.ndarray:
        """Which points fall into leaves that are decided."""
        return ~self.open[self.apply(X)]

    def fidelity(self, X: ArrayLike, decisions: ArrayLike) -> float:
        """Share of points `X` (n, d) on which this tree decides as `decisions` (n,) say: numbers of
        classes. A point in an open leaf is not decided, and counts against the tree."""
        decisions = np.asarray(decisions)
        found = self.decide(X)
        if decisions.shape != found.shape:
            raise ValueError(
                f"fidelity: a decision for each of {len(found)} points is needed; "
                f"found {decisions.shape}."
            )
        return float(np.mean(found == decisions))

    def region(self, leaf: int, *, reduce: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The leaf's closed region as `A x + b >= 0`, rows of unit length: A (m, d), b (m,).

        `reduce` leaves out rows that follow from the others, one linear program each.

        **Raises:** `ValueError` for a number that is not a leaf's.
        """
        return _region(self, leaf, reduce=reduce)

    def rules(self, names: list[str] | None = None, *, digits: int = 4) -> str:
        """The tree as indented text; `names` of the d inputs."""
        return rules(self, names, digits)

    def to_dot(self, names: list[str] | None = None, *, digits: int = 3) -> str:
        """The tree in Graphviz's language."""
        return dot(self, names, digits)

    def to_json(self) -> str:
        """The tree as JSON, to the last bit; `ModelTree.from_json` reads it back."""
        return to_json(self)

    @staticmethod
    def from_json(text: str) -> "ModelTree":
        """Read what `to_json` wrote. **Raises:** `ValueError` for anything else."""
        return ModelTree(**from_json(text))

    def as_record(self) -> Record:
        """What this result says of itself."""
        return _record(self)


def _record(tree: ModelTree) -> Record:
    n, undecided = len(tree.leaves), int(tree.open.sum())
    what = "one class wins" if tree.decides else "the network is affine and equal to it"
    partial = f"PARTIAL: {undecided} of {n} leaves are open (predict gives NaN); raise `max_leaves`"
    seen = sorted(set(tree.label[tree.leaves].tolist()) - {-1})
    shown = ", ".join(map(str, seen[:12])) + (" ..." if len(seen) > 12 else "")
    kind = "classes" if tree.decides else "winning pieces"
    if tree.measured is not None:
        share, points = tree.measured["fidelity"], int(tree.measured["points"])
        return Record(
            f"Distilled tree of {tree.a.shape[1]} inputs",
            f"not exact: decides as the network on {share:.1%} of {points} points held out",
            verdict="measured",
            tone="partial",
            facts={"leaves": n, "depth": tree.depth, "fidelity": share},
            lead=("leaves", "depth", "fidelity"),
        )
    return Record(
        f"Model tree of {tree.a.shape[1]} inputs and {tree.coef.shape[1]} outputs",
        f"exact: on each leaf {what}" if tree.complete else partial,
        verdict="complete" if tree.complete else "partial",
        tone="good" if tree.complete else "partial",
        facts={"leaves": n, "depth": tree.depth}
        | ({kind: f"{len(seen)} different, {shown}"} if seen else {}),
        lead=("leaves", "depth"),
    )


def _applied(tree: ModelTree, X: ArrayLike) -> np.ndarray:
    X = _points(tree, "apply", X)
    node = np.zeros(len(X), int)
    todo = [(0, np.arange(len(X)))]
    while todo:
        k, rows = todo.pop()
        if tree.left[k] < 0 or not len(rows):
            node[rows] = k
            continue
        goes = X[rows] @ tree.a[k] + tree.c[k] >= 0
        todo += [(tree.left[k], rows[~goes]), (tree.right[k], rows[goes])]
    return node


def _predicted(tree: ModelTree, X: ArrayLike) -> np.ndarray:
    X = _points(tree, "predict", X)
    if tree.decides:
        raise ValueError("predict: this tree carries classes; use `decide`, or grow without it.")
    at = tree.apply(X)
    out = np.full((len(X), tree.coef.shape[1]), np.nan)
    for k in np.unique(at):
        if not tree.open[k]:
            rows = at == k
            out[rows] = X[rows] @ tree.coef[k].T + tree.intercept[k]
    return out


def _points(tree: ModelTree, who: str, X: ArrayLike) -> np.ndarray:
    X = np.asarray(X, float)
    if X.ndim != 2 or X.shape[1] != tree.a.shape[1]:
        raise ValueError(f"{who}: points (n, {tree.a.shape[1]}) are needed; found {X.shape}.")
    if not np.isfinite(X).all():
        raise ValueError(f"{who}: finite points are needed; found NaN or inf.")
    return X


def _region(tree: ModelTree, leaf: int, *, reduce: bool = True) -> tuple[np.ndarray, np.ndarray]:
    if not 0 <= leaf < len(tree.left) or tree.left[leaf] >= 0:
        raise ValueError(
            f"region: a leaf of this tree is needed, one of {tree.leaves[:8]}...; found {leaf}."
        )
    rows, offsets = [], []
    k = leaf
    while tree.parent[k] >= 0:
        up = tree.parent[k]
        sign = 1.0 if tree.right[up] == k else -1.0
        rows.append(sign * tree.a[up])
        offsets.append(sign * tree.c[up])
        k = up
    d = tree.a.shape[1]
    A, b = np.array(rows[::-1]).reshape(-1, d), np.array(offsets[::-1])
    if tree.box is not None:
        edge = everywhere(d, tree.box)
        A, b = np.vstack([edge.A, A]), np.concatenate([edge.c, b])
    keep = minimal(A, b) if reduce else slice(None)
    return A[keep], b[keep]


@admits(max_leaves=">= 1")
def model_tree(
    model: Any,
    weights: Any = None,
    *,
    decide: bool = False,
    max_leaves: int = 4096,
    box: ArrayLike | None = None,
    points: ArrayLike | None = None,
) -> ModelTree:
    """The exact tree of a network that is piecewise affine; see `piecewise_affine` for what is read.

    **Arguments:** `decide`: leaves carry the largest output's number (the class) instead of values, and
    neighbours of one class are joined;
    `max_leaves`: the budget; `box` (2, d): a domain, else all of space; `points` (n, d): where the
    budget is to be spent first.

    **Raises:** `ValueError` for a model that is not piecewise affine, or arguments of other shapes.
    """
    net = piecewise_affine(model, weights)
    d = net.inputs
    if max_leaves < 1:
        raise ValueError(f"model_tree: max_leaves >= 1 is needed; found {max_leaves}.")
    edge = None if box is None else np.asarray(box, float)
    if edge is not None and (edge.shape != (2, d) or not (edge[0] < edge[1]).all()):
        raise ValueError(f"model_tree: a box (2, {d}), lower < upper, is needed; found {box}.")
    sample = None if points is None else np.asarray(points, float)
    if sample is not None and (sample.ndim != 2 or sample.shape[1] != d):
        raise ValueError(f"model_tree: points (n, {d}) are needed; found {sample.shape}.")
    blocks = net.blocks
    if decide:
        if net.outputs < 2:
            raise ValueError("model_tree: `decide` needs two outputs or more; found one.")
        count = net.outputs
        blocks = (*blocks, AffineBlock(np.eye(count), np.zeros(count), np.zeros(count, int)))
    grown = grow(blocks, start(blocks, everywhere(d, edge)), max_leaves, sample, decide)
    return _arrays(grown, d, net.outputs, edge, decide)


def _arrays(grown: Grown, d: int, outputs: int, box: np.ndarray | None, decide: bool) -> ModelTree:
    n = len(grown.leaf)
    left, right = np.array(grown.children).T
    a, c, coef, intercept = (
        np.zeros((n, d)),
        np.zeros(n),
        np.zeros((n, outputs, d)),
        np.zeros((n, outputs)),
    )
    label, undecided = np.full(n, -1), np.zeros(n, bool)
    for k in range(n):
        split, leaf = grown.split[k], grown.leaf[k]
        if split is not None:
            a[k], c[k] = split
        elif leaf is not None:
            coef[k], intercept[k], label[k] = leaf
        else:
            undecided[k] = True
    if decide:
        return _merged(
            ModelTree(left, right, a, c, 0 * coef, 0 * intercept, label, undecided, box, True)
        )
    return ModelTree(left, right, a, c, coef, intercept, label, undecided, box)


def _merged(tree: ModelTree) -> ModelTree:
    """Two leaves of one class under one node are one leaf, again and again."""
    left, right, label, gone = (a.copy() for a in (tree.left, tree.right, tree.label, tree.open))
    gone[:] = False
    for k in reversed(range(len(left))):  # children come after their parent
        ends = [left[k], right[k]]
        if left[k] < 0 or np.any(left[ends] >= 0) or tree.open[ends].any():
            continue
        if label[ends[0]] == label[ends[1]]:
            label[k], left[k], right[k] = label[ends[0]], -1, -1
            gone[ends] = True
    keep = np.flatnonzero(~gone)
    number = np.full(len(left) + 1, -1)  # the last entry takes -1 to -1
    number[keep] = np.arange(len(keep))
    inner = (left[keep] >= 0)[:, None]
    return ModelTree(
        number[left[keep]],
        number[right[keep]],
        np.where(inner, tree.a[keep], 0.0),
        np.where(inner[:, 0], tree.c[keep], 0.0),
        tree.coef[keep],
        tree.intercept[keep],
        label[keep],
        tree.open[keep],
        tree.box,
        decides=True,
    )
