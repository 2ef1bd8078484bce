"""Bounds of a deep network beside attacks and published verifiers: auto_LiRPA's CROWN and Marabou.

    python against_verifiers.py

Digits over 16, scikit-learn's MLP with two layers of 16 units trained on the first 1000, read on others.
First the certified radius of 200 digits, of ReLU and of tanh units, beside the shortest step that 8
starts of 40 steps find: how many certificates are beaten, and the median of their quotient. Then bounds
of the ten outputs over one and the same ball: mean widths, and seconds a sample after the first call.
Then decisions over a box: samples that our lines certify and those that `box_margin` does by splitting,
those that Marabou proves and refutes (it splits too); `wrong` counts where we say otherwise. Where a
verifier is not installed its table is left out.

auto_LiRPA 0.3, the newest on the registry, was written for torch 1.12: `_older_torch` puts back the four
private names that it reads. Its bounds are computed by its own code.
"""

import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import hjcontrol as hj
from hjcontrol.analysis.robustness import (
    attacked_radius,
    box_margin,
    certified_radius,
    output_bounds,
)

jax.config.update("jax_enable_x64", True)
SAMPLES, DECIDED, ATTACKED = 100, 40, 200


def network(activation="relu", samples=SAMPLES):
    """Pairs (W, b), and samples that were not trained on."""
    X, y = load_digits(return_X_y=True)
    X = X[np.random.default_rng(0).permutation(len(X))] / 16
    y = y[np.random.default_rng(0).permutation(len(y))]
    settings = {"activation": activation, "alpha": 1e-2, "max_iter": 1000, "random_state": 0}
    net = MLPClassifier((16, 16), **settings).fit(X[:1000], y[:1000])
    pairs = [(W.T, b) for W, b in zip(net.coefs_, net.intercepts_, strict=True)]
    return pairs, X[1000 : 1000 + samples]


def beside_attacks():
    print(
        "| units | digits | beaten | median certified / attacked | seconds, certified / attacked |"
    )
    print("|---|---|---|---|---|")
    for activation in ("relu", "tanh"):
        pairs, X = network(activation, ATTACKED)
        model = hj.networks.from_model(pairs, activation=activation)
        keys = jax.random.split(jax.random.key(0), ATTACKED)
        certify = jax.jit(jax.vmap(lambda x, m=model: certified_radius(m, x).radius))
        reach = jax.jit(jax.vmap(lambda x, k, m=model: attacked_radius(m, x, key=k)))
        proved, first = timed(lambda c=certify, X=X: np.asarray(c(jnp.asarray(X))))
        found, second = timed(lambda r=reach, X=X, k=keys: np.asarray(r(jnp.asarray(X), k)))
        beaten, share = int((found < proved).sum()), float(np.median(proved / found))
        print(
            f"| {activation} | {ATTACKED} | {beaten} | {share:.2f} | {first:.2f} / {second:.1f} |"
        )


def main():
    beside_attacks()
    pairs, X = network()
    try:
        beside_crown(pairs, X)
    except ImportError as error:
        print(f"auto_LiRPA: {error}; no comparison")
    try:
        beside_marabou(pairs, X[:DECIDED])
    except ImportError as error:
        print(f"maraboupy: {error}; no comparison")


def bounds_of(pairs, norm):
    """Ours over many balls: one program."""
    model = hj.networks.from_model(pairs, activation="relu")
    found = jax.jit(jax.vmap(lambda x, r: output_bounds(model, x, r, norm=norm), (0, None)))
    return lambda X, r: found(jnp.asarray(X), r)


def timed(call):
    """What a call gives the second time, and its seconds then."""
    call()
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start


def beside_crown(pairs, X):
    lirpa = _older_torch()
    import torch

    layers = []
    for k, (W, b) in enumerate(pairs):
        linear = torch.nn.Linear(W.shape[1], W.shape[0]).double()
        linear.weight.data, linear.bias.data = torch.tensor(W), torch.tensor(b)
        layers += [linear] if k == len(pairs) - 1 else [linear, torch.nn.ReLU()]
    x = torch.tensor(X)
    bounded = lirpa.BoundedModule(torch.nn.Sequential(*layers), x)
    print("| norm, radius | width, ours | CROWN | tighter than theirs | ours, ms | theirs, ms |")
    print("|---|---|---|---|---|---|")
    for norm, radii in ((np.inf, (0.01, 0.03, 0.1)), (2, (0.05, 0.2, 0.6))):
        ours = bounds_of(pairs, norm)
        for radius in radii:
            here, mine = timed(lambda r=radius, f=ours: jax.block_until_ready(f(X, r)))
            ball = lirpa.BoundedTensor(x, lirpa.PerturbationLpNorm(norm=norm, eps=radius))
            (low, high), took = timed(
                lambda ball=ball: bounded.compute_bounds(x=(ball,), method="CROWN")
            )
            width = np.asarray(here.upper - here.lower)
            theirs = (high - low).detach().numpy()
            assert_encloses(pairs, X, radius, norm, here)
            print(
                f"| {norm}, {radius} | {width.mean():.4f} | {theirs.mean():.4f} | "
                f"{(width <= theirs * (1 + 1e-9)).mean():.3f} | {1e3 * mine / len(X):.3f} | "
                f"{1e3 * took / len(X):.3f} |",
                flush=True,
            )


def forward(pairs, x):
    for W, b in pairs[:-1]:
        x = np.maximum(x @ W.T + b, 0)
    return x @ pairs[-1][0].T + pairs[-1][1]


def assert_encloses(pairs, X, radius, norm, here):
    """No output at a random point of the ball lies outside the bounds."""
    draw = np.random.default_rng(1)
    for _ in range(50):
        step = draw.uniform(-1, 1, X.shape)
        if norm == 2:
            step /= np.linalg.norm(step, axis=1, keepdims=True)
        out = forward(pairs, X + radius * step)
        assert (out >= here.lower).all()
        assert (out <= here.upper).all()


def beside_marabou(pairs, X):
    from maraboupy import MarabouCore

    model = hj.networks.from_model(pairs, activation="relu")
    labels = forward(pairs, X).argmax(axis=1)
    print(
        "\n| box | lines | splitting | Marabou proves | refutes | wrong | ms: lines | splitting | its |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for radius in (0.01, 0.02, 0.03, 0.05):
        ours, mine = certified(pairs, X, labels, radius)
        margins, split = timed(lambda r=radius: [box_margin(model, x, r) for x in X])
        holds, fell = (np.array([getattr(m, w) for m in margins]) for w in ("holds", "broken"))
        start = time.perf_counter()
        told = [
            decided(MarabouCore, pairs, x, label, radius)
            for x, label in zip(X, labels, strict=True)
        ]
        took = time.perf_counter() - start
        proved, refuted = (np.array([t == what for t in told]) for what in ("unsat", "sat"))
        wrong = ((ours | holds) & refuted) | (fell & proved)
        spent = " | ".join(f"{1e3 * t / len(X):.1f}" for t in (mine, split, took))
        print(
            f"| {radius} | {ours.sum()} | {holds.sum()} | {proved.sum()} | {refuted.sum()} | "
            f"{wrong.sum()} | {spent} |",
            flush=True,
        )


def certified(pairs, X, labels, radius):
    """Which samples the lines certify in a box, and seconds."""
    ours, spent = np.zeros(len(X), bool), 0.0
    W, b = pairs[-1]
    for label in np.unique(labels):
        rows, rivals = labels == label, np.arange(len(b)) != label
        leads = (W[label] - W[rivals], b[label] - b[rivals])
        found = bounds_of([*pairs[:-1], leads], np.inf)
        here, took = timed(lambda f=found, rows=rows: jax.block_until_ready(f(X[rows], radius)))
        ours[rows], spent = (np.asarray(here.lower) > 0).all(axis=1), spent + took
    return ours, spent


def decided(core, pairs, x, label, radius):
    """`unsat` where no rival reaches the label in the box, `sat` where one does, else what stopped it."""
    ends = []
    for rival in range(len(pairs[-1][1])):
        if rival == label:
            continue
        query = encoded(core, pairs, x, radius, label, rival)
        options = core.Options()
        options._verbosity, options._timeoutInSeconds = 0, 20
        end = core.solve(query, options, "")[0]
        if end == "sat":
            return end
        ends.append(end)
    return "unsat" if set(ends) == {"unsat"} else "open"


def encoded(core, pairs, x, radius, label, rival):
    """The network in the box, with `z_label - z_rival <= 0`."""
    query, inputs = core.InputQuery(), list(range(len(x)))
    query.setNumberOfVariables(len(x) + sum(2 * len(b) for _, b in pairs))
    for k, v in enumerate(x):
        query.markInputVariable(k, k)
        query.setLowerBound(k, v - radius)
        query.setUpperBound(k, v + radius)
    free = len(x)
    for layer, (W, b) in enumerate(pairs):
        sums = list(range(free, free + len(b)))
        for row, offset, out in zip(W, b, sums, strict=True):
            equation = core.Equation(core.Equation.EQ)
            for weight, variable in zip(row, inputs, strict=True):
                equation.addAddend(float(weight), variable)
            equation.addAddend(-1.0, out)
            equation.setScalar(-float(offset))
            query.addEquation(equation)
        free += 2 * len(b)
        inputs = list(range(free - len(b), free))
        if layer < len(pairs) - 1:
            for z, a in zip(sums, inputs, strict=True):
                core.addReluConstraint(query, z, a)
    lead = core.Equation(core.Equation.LE)
    lead.addAddend(1.0, sums[label])
    lead.addAddend(-1.0, sums[rival])
    lead.setScalar(0.0)
    query.addEquation(lead)
    for k, out in enumerate(sums):
        query.markOutputVariable(out, k)
    return query


def _older_torch():
    """auto_LiRPA with the private names of NumPy and torch that it was written for."""
    sets = types.ModuleType("numpy.lib.arraysetops")
    sets.isin = np.isin
    sys.modules.setdefault("numpy.lib.arraysetops", sets)
    import torch
    import torch.onnx.symbolic_helper as helper
    from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

    helper._set_opset_version = lambda v: setattr(GLOBALS, "export_onnx_opset_version", v)
    torch._C.Node.__getitem__ = lambda node, name: getattr(node, node.kindOf(name))(name)
    import auto_LiRPA

    return auto_LiRPA


if __name__ == "__main__":
    main()
