r"""At eps = 0 a network is a tree; at eps > 0 a soft one.

    soft   P(left) = sigma((lse(left) - lse(right))/eps),   pi_j = product along the path: exact
    hard   oblique splits and *affine* leaves: a model tree

n generic ReLUs in the plane have 1 + n + n(n-1)/2 leaves.
"""

import functools

import jax
import numpy as np

from hjcontrol.analysis.tree import AffineBlock, PiecewiseAffine, model_tree, soft_tree
from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.claims.setting import cloud
from hjcontrol.reproduction.finding import at_most, equal, zero


@functools.cache
def _grown(units: int):
    """A layer of ReLUs in the plane with a linear output, and its tree."""
    W, b = cloud(units, units, 2)
    out = np.random.default_rng(50 + units).standard_normal((1, units))
    pieces = np.stack([W, np.zeros_like(W)], axis=1).reshape(-1, 2)
    offsets = np.stack([b, np.zeros_like(b)], axis=1).ravel()
    hidden = AffineBlock(pieces, offsets, np.repeat(np.arange(units), 2))
    net = PiecewiseAffine((hidden, AffineBlock(out, np.zeros(1), np.zeros(1, int))))
    return W, b, out, model_tree(net)


def _soft(gate: float) -> float:
    """Largest error of the product of gates against Gibbs weights by hand."""
    W, b = cloud(40, 9, 3)
    x = np.random.default_rng(41).standard_normal((30, 3))
    tree = soft_tree(LSE(W, b, 0.3 * gate))
    ours = np.asarray(jax.jit(jax.vmap(tree.weights))(x))
    return float(np.abs(ours - by_hand.weights(x @ W.T + b, 0.3)).max())


def _measure(fast: bool, gate: float) -> Evidence:
    sizes, points = ((8,), 2000) if fast else ((8, 16), 100000)
    leaves, apart, spread = [], [], []
    for units in sizes:
        W, b, out, tree = _grown(units)
        x = np.random.default_rng(1).uniform(-4, 4, (points, 2))
        network = np.maximum(x @ W.T + b, 0) @ out.T
        apart.append(np.abs(np.asarray(tree.predict(x)).reshape(-1) - network[:, 0]).max())
        at = np.asarray(tree.apply(x))
        home = np.bincount(at).argmax()
        spread.append(np.ptp(network[at == home]))
        leaves.append(len(tree.leaves))
    count = [1 + n + n * (n - 1) // 2 for n in sizes]
    return evidence(
        at_most("spread of the network within one leaf", spread, 1e-12),
        zero("tree with affine leaves − network", apart, 1e-12, role="amended"),
        zero("product of soft gates − Gibbs weight", _soft(gate), 1e-14, role="amended"),
        equal("leaves of 8 ReLUs in the plane", leaves[0], 37, 0.5, role="number"),
        equal("leaves: 1 + n + n(n−1)/2", leaves, count, 0.5, role="amended"),
    )


CLAIM = Claim(
    id="tree",
    title="At ε = 0 a network collapses to a decision tree, at ε > 0 to a soft one",
    source="popular summary",
    published="A deep network becomes a decision tree as ε → 0, a soft tree before.",
    precise="A model tree: oblique splits and affine, not constant, leaves; for max-affine layers "
    "the cells are power cells, and 8 generic ReLUs in the plane give 37 leaves. The soft tree, "
    "of any nesting, has the Gibbs weights exactly.",
    check=lambda fast: _measure(fast, 1.0),
    fault="the gates are a fiftieth too hot",
    control=lambda fast: Evidence(
        (zero("product of soft gates − Gibbs weight", _soft(1.02), 1e-14, role="amended"),)
    ),
    recorded="holds once amended",
    seconds=15,
)
