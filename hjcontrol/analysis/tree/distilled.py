r"""A small tree of a deep classifier, cut along the network's own hyperplanes, with measured fidelity.

    candidates   at a sample x_i with classes p, q ahead:  z_p - z_q linearised there,
                 (J_p - J_q).(x - x_i) + z_p(x_i) - z_q(x_i) >= 0             J = dz/dx
    choice       the split that leaves least Gini impurity of the network's decisions in its node
    asked        the network, at the samples and at points up to halfway from one to another: many planes
                 separate the samples, few of them these points too
    order        best first, until the budget of leaves is spent or every leaf is pure
    fidelity     share of points, not used to grow it, on which tree and network decide alike

Not exact: `model_tree` is, and needs far more leaves. Any network with derivatives will do.
"""

import heapq
import itertools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol.analysis.tree.model_trees import ModelTree
from hjcontrol.layers.heads import ClassHead
from hjcontrol.networks.trained import AnyClassifier, class_head_of

ANCHORS = 48  # samples of a node whose hyperplanes are tried
BETWEEN = 1000  # points between samples
BATCH = 128  # points asked at once, so that every call runs one program


class _Cut(NamedTuple):
    gain: float
    a: np.ndarray
    c: float
    right: np.ndarray


@admits(max_leaves=">= 2")
def distilled_tree(
    model: AnyClassifier,
    X: Real[ArrayLike, "n d"],
    *,
    max_leaves: int = 16,
    held_out: Real[ArrayLike, "m d"] | None = None,
) -> ModelTree:
    """A tree of at most `max_leaves` leaves that imitates a classifier where the samples `X` (n, d) are.

    The classifier is asked at the samples and at points between them; their true labels play no part.
    `held_out` (m, d): where fidelity is measured; without it a fifth of `X` is kept back for that.

    **Raises:** `ValueError` for samples of another shape or not finite, fewer than ten of them, or a
    model without classes.
    """
    head = class_head_of("distilled_tree", model)
    X = _checked("X", X)
    if held_out is None:
        if len(X) < 10:
            raise ValueError(
                f"distilled_tree: ten samples are needed, a fifth of them held out; found {len(X)}."
            )
        apart = np.arange(len(X)) % 5 == 4
        X, test = X[~apart], X[apart]
    else:
        test = _checked("held_out", held_out)
    if test.shape[1:] != X.shape[1:]:
        raise ValueError(
            f"distilled_tree: `held_out` has {test.shape[1]} columns; `X` has {X.shape[1]}."
        )
    asked = np.concatenate([X, _between(X)])
    z, J = _read(head, np.concatenate([asked, test]))
    tree = _grown(asked, z[: len(asked)], J[: len(asked)], max_leaves)
    decided = z[len(asked) :].argmax(axis=1)
    tree.measured = {"fidelity": float(np.mean(tree.decide(test) == decided)), "points": len(test)}
    return tree


def _between(X: np.ndarray) -> np.ndarray:
    """Points on the lines from one sample to another, nearer to the one; the same ones each time."""
    draw = np.random.default_rng(0)
    first, second = draw.integers(len(X), size=(2, BETWEEN))
    return X[first] + draw.uniform(0, 0.5, (BETWEEN, 1)) * (X[second] - X[first])


@eqx.filter_jit
def _asked(
    head: ClassHead, X: Float[Array, "n d"]
) -> tuple[Float[Array, "n classes"], Float[Array, "n classes d"]]:
    return jax.vmap(lambda x: (head.scores(x), jax.jacrev(head.scores)(x)))(X)


def _read(head: ClassHead, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and their derivatives at the points."""
    count = -(-len(X) // BATCH)
    filled = np.resize(X, (count * BATCH, X.shape[1]))
    rows = [_asked(head, jnp.asarray(part)) for part in np.split(filled, count)]
    z, J = (np.concatenate([np.asarray(r[k], float) for r in rows]) for k in range(2))
    return z[: len(X)], J[: len(X)]


def _checked(name: str, X: ArrayLike) -> np.ndarray:
    X = np.asarray(X, float)
    if X.ndim != 2 or 0 in X.shape or not np.isfinite(X).all():
        raise ValueError(f"distilled_tree: `{name}` needs finite samples (n, d); found {X.shape}.")
    return X


class _Planes(NamedTuple):
    """At every point asked: the network's decision, its lead, and the unit hyperplane `a.x + c = 0` on
    which the two classes ahead tie; `length` is the slope's before it became one."""

    X: np.ndarray
    labels: np.ndarray
    hot: np.ndarray  # the labels, one-hot
    lead: np.ndarray
    a: np.ndarray
    c: np.ndarray
    length: np.ndarray


def _planes(X: np.ndarray, z: np.ndarray, J: np.ndarray) -> _Planes:
    labels, count = z.argmax(axis=1), z.shape[1]
    order = np.argsort(-z, axis=1, kind="stable")[:, :2]
    rows = np.arange(len(X))
    lead = z[rows, order[:, 0]] - z[rows, order[:, 1]]
    a = J[rows, order[:, 0]] - J[rows, order[:, 1]]
    length = np.linalg.norm(a, axis=1)
    a = a / np.where(length > 0, length, 1.0)[:, None]
    c = lead / np.where(length > 0, length, 1.0) - np.sum(a * X, axis=1)
    return _Planes(X, labels, np.eye(count)[labels], lead, a, c, length)


def _best_cut(planes: _Planes, here: np.ndarray) -> _Cut | None:
    """The hyperplane that takes most impurity from a node, of some spread evenly over its leads."""
    labels, lead, hot = planes.labels, planes.lead, planes.hot
    near = here[planes.length[here] > 0]
    near = near[np.argsort(lead[near], kind="stable")]
    tried = (
        near[np.unique(np.linspace(0, len(near) - 1, ANCHORS).astype(int))] if len(near) else near
    )
    if not len(tried) or len(np.unique(labels[here])) < 2:
        return None
    right = planes.X[here] @ planes.a[tried].T + planes.c[tried] >= 0  # (points, candidates)
    inside = right.T.astype(float) @ hot[here]
    outside = hot[here].sum(axis=0) - inside
    gini = lambda n: n.sum(axis=1) - np.sum(n**2, axis=1) / np.maximum(n.sum(axis=1), 1.0)
    before = gini(hot[here].sum(axis=0)[None])[0]
    gain = before - gini(inside) - gini(outside)
    k = int(np.argmax(gain))
    if gain[k] <= 1e-9:
        return None
    return _Cut(gain[k], planes.a[tried[k]], planes.c[tried[k]], right[:, k])


def _grown(X: np.ndarray, z: np.ndarray, J: np.ndarray, max_leaves: int) -> ModelTree:
    """Best first."""
    planes, count = _planes(X, z, J), z.shape[1]
    nodes: list[dict[str, Any]] = []
    heap: list[tuple[float, int, int, np.ndarray, _Cut]] = []
    tie = itertools.count()

    def add(here: np.ndarray) -> int:
        nodes.append({"label": int(np.bincount(planes.labels[here], minlength=count).argmax())})
        cut = _best_cut(planes, here)
        if cut is not None:
            heapq.heappush(heap, (-cut.gain, next(tie), len(nodes) - 1, here, cut))
        return len(nodes) - 1

    add(np.arange(len(X)))
    leaves = 1
    while heap and leaves < max_leaves:
        _, _, k, here, cut = heapq.heappop(heap)
        sides = add(here[~cut.right]), add(here[cut.right])
        nodes[k] |= {"a": cut.a, "c": cut.c, "sides": sides}
        leaves += 1
    return _as_tree(nodes, X.shape[1])


def _as_tree(nodes: list[dict[str, Any]], d: int) -> ModelTree:
    """Nodes as the tree's arrays; a leaf has a label and no sides."""
    n, flat = len(nodes), np.zeros(d)
    sides = np.array([node.get("sides", (-1, -1)) for node in nodes])
    return ModelTree(
        sides[:, 0],
        sides[:, 1],
        np.array([node.get("a", flat) for node in nodes]),
        np.array([node.get("c", 0.0) for node in nodes]),
        np.zeros((n, 1, d)),
        np.zeros((n, 1)),
        np.array([-1 if "sides" in node else node["label"] for node in nodes]),
        np.zeros(n, bool),
        None,
        True,
    )
