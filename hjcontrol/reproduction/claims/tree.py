r"""At eps = 0 a network is a tree; at eps > 0 a soft one.

    soft   P(left) = sigma((lse(left) - lse(right))/eps),   pi_j = product along the path: exact
    hard   oblique splits and *affine* leaves: a model tree

n generic ReLUs in the plane have 1 + n + n(n-1)/2 leaves.
"""

import functools
import itertools

import jax
import numpy as np

from hjcontrol.analysis.tree import model_tree, piecewise_affine, soft_tree
from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence, those
from hjcontrol.reproduction.claims.setting import cloud
from hjcontrol.reproduction.finding import at_most, equal, zero


@functools.cache
def _grown(units: int):
    """A layer of ReLUs in the plane with a linear output, and its tree."""
    W, b = cloud(units, units, 2)
    out = np.random.default_rng(50 + units).standard_normal((1, units))
    return W, b, out, model_tree(piecewise_affine([(W, b), (out, np.zeros(1))]))


@functools.cache
def _deep(units: int):
    """A network of two hidden layers and three classes: its matrices, its tree, its classes' tree."""
    rng = np.random.default_rng(60 + units)
    sizes = (2, units, units, 3)
    layers = [
        (rng.standard_normal((n, m)) / np.sqrt(m / 2), rng.standard_normal(n) / 2)
        for m, n in itertools.pairwise(sizes)
    ]
    net = piecewise_affine(layers)
    return layers, model_tree(net), model_tree(net, decide=True)


def _forward(layers, x: np.ndarray, slope: float) -> np.ndarray:
    """The network by hand, units of negative slope `slope`."""
    for W, b in layers[:-1]:
        z = x @ W.T + b
        x = np.maximum(z, slope * z)
    return x @ layers[-1][0].T + layers[-1][1]


def _soft(gate: float) -> float:
    """Largest error of the product of gates against Gibbs weights by hand."""
    W, b = cloud(40, 9, 3)
    x = np.random.default_rng(41).standard_normal((30, 3))
    tree = soft_tree(LSE(W, b, 0.3 * gate))
    ours = np.asarray(jax.jit(jax.vmap(tree.weights))(x))
    return float(np.abs(ours - by_hand.weights(x @ W.T + b, 0.3)).max())


def _spread(tree, x: np.ndarray, values: np.ndarray) -> float:
    """How far `values` are apart within the leaf that holds most of the points."""
    at = np.asarray(tree.apply(x))
    return float(np.ptp(values[at == np.bincount(at).argmax()]))


def _measure(fast: bool, gate: float = 1.0, slope: float = 0.0, classes: bool = False) -> Evidence:
    """`gate`: times the temperature of the soft tree. `slope` of the units by hand below 0. `classes`: a
    leaf is asked for the class, not for the value."""
    units, points = (4, 2000) if fast else (6, 100000)
    layers, values, decisions = _deep(units)
    x = np.random.default_rng(1).uniform(-4, 4, (points, 2))
    network = _forward(layers, x, slope)
    label = network.argmax(axis=1)
    spread = _spread(decisions, x, label) if classes else _spread(values, x, network[:, 0])
    sizes = (8,) if fast else (8, 16)
    leaves, apart = [], []
    for n in sizes:
        W, b, out, tree = _grown(n)
        hand = _forward([(W, b), (out, np.zeros(1))], x, slope)
        apart.append(np.abs(np.asarray(tree.predict(x)).reshape(-1) - hand[:, 0]).max())
        leaves.append(len(tree.leaves))
    count = [1 + n + n * (n - 1) // 2 for n in sizes]
    return evidence(
        at_most("spread of two hidden layers within one leaf", spread, 1e-12),
        zero(
            "tree of two hidden layers − network",
            values.predict(x) - network,
            1e-12,
            role="amended",
        ),
        equal(
            "share of its classes' tree that is right",
            np.mean(decisions.decide(x) == label),
            1.0,
            1e-9,
            role="amended",
        ),
        equal("both are complete", [values.complete, decisions.complete], 1.0, 0.0, role="amended"),
        zero("tree of one hidden layer − network", apart, 1e-12, role="amended"),
        zero("product of soft gates − Gibbs weight, one layer", _soft(gate), 1e-14, role="amended"),
        equal("leaves of 8 ReLUs in the plane", leaves[0], 37, 0.5, role="number"),
        equal("leaves of one layer: 1 + n + n(n−1)/2", leaves, count, 0.5, role="amended"),
    )


CLAIM = Claim(
    id="tree",
    title="At ε = 0 a network collapses to a decision tree, at ε > 0 to a soft one",
    source="popular summary",
    published="A deep network becomes a decision tree as ε → 0, a soft tree before.",
    precise="A model tree: oblique splits and affine, not constant, leaves, checked for two hidden "
    "layers and for one (8 generic ReLUs in the plane give 37 leaves). Its classes are a decision tree "
    "with oblique splits. The soft tree is that of one layer, of any nesting, and exact.",
    check=_measure,
    fault="a leaf is asked for its class; the units by hand leak a thousandth; the gates are a fiftieth "
    "too hot",
    control=lambda fast: Evidence(
        those(
            _measure(True, 1.02, 1e-3, classes=True),
            "spread",
            "tree of two",
            "tree of one",
            "product of soft gates",
        )
    ),
    recorded="holds once amended",
    seconds=15,
)
