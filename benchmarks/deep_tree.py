"""Trees of deep classifiers: fidelity beside a decision tree distilled by scikit-learn at equal size.

    python benchmarks/deep_tree.py

Networks: scikit-learn's MLP with two layers of 16 ReLUs behind a `StandardScaler`; half of the samples
train network and trees, fidelity is measured on the other half; means over five splits, seconds the
median of them (the first call for a network's shapes compiles: some tenths of a second more). Then the
exact tree in a box about one sample, of side twice `reach` standard deviations: leaves, open leaves,
seconds. Last, where `affinitree` is installed (a tree builder in Rust), exact trees of random nets by
both: leaves, processor seconds.
"""

import itertools
import time

import jax
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import hjcontrol as hj
from hjcontrol.analysis import tree as tr

jax.config.update("jax_enable_x64", True)


SPLITS = 5


def network(load, split=0):
    X, y = load(return_X_y=True)
    keep = np.random.default_rng(split).permutation(len(X))
    X, y, half = X[keep], y[keep], len(X) // 2
    net = MLPClassifier((16, 16), alpha=1e-2, max_iter=1000, random_state=split)
    model = make_pipeline(StandardScaler(), net).fit(X[:half], y[:half])
    return hj.networks.from_model(model), model, X[:half], X[half:]


def main():
    print("| data | leaves | ours | seconds | scikit-learn | seconds | ours ahead or level |")
    print("|---|---|---|---|---|---|---|")
    for load in (load_wine, load_breast_cancer, load_digits):
        runs = [network(load, split) for split in range(SPLITS)]
        for leaves in (2, 4, 8, 16, 32):
            rows = np.array([beside(leaves, *run) for run in runs])
            mine, took, alike, other, here, there = rows.T
            size = f"{here.mean():.1f} / {there.mean():.1f}"
            print(
                f"| {load.__name__[5:]} | {size} | {mine.mean():.3f} | {np.median(took):.3f} | "
                f"{alike.mean():.3f} | {np.median(other):.4f} | {(mine >= alike).sum()} of {SPLITS} |",
                flush=True,
            )
    exact_in_a_box()
    beside_affinitree()


def beside(leaves, ours, model, X, test):
    """Fidelity and seconds of ours and of scikit-learn's, and how many leaves each has."""
    told = model.predict(test)
    start = time.perf_counter()
    tree = tr.distilled_tree(ours, X, max_leaves=leaves, held_out=test)
    mine = time.perf_counter() - start
    start = time.perf_counter()
    theirs = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0)
    theirs.fit(X, model.predict(X))
    took = time.perf_counter() - start
    alike = np.mean(theirs.predict(test) == told)
    return tree.fidelity(test, told), mine, alike, took, len(tree.leaves), theirs.get_n_leaves()


def exact_in_a_box():
    print("\n| exact, breast_cancer, reach | leaves | open | seconds |\n|---|---|---|---|")
    ours, _, X, _ = network(load_breast_cancer)
    for reach in (0.05, 0.1, 0.2):
        box = X[0] + np.array([[-reach], [reach]]) * X.std(axis=0)
        start = time.perf_counter()
        tree = tr.model_tree(ours, decide=True, max_leaves=20_000, box=box)
        seconds = time.perf_counter() - start
        print(f"| {reach} | {len(tree.leaves)} | {tree.open.sum()} | {seconds:.1f} |", flush=True)


def beside_affinitree():
    try:
        import affinitree
    except ImportError:
        print("affinitree is not installed; no comparison")
        return
    print("\n| net | leaves, ours / affinitree | seconds | ratio |\n|---|---|---|---|")
    for k, sizes in enumerate(((2, 16, 1), (2, 12, 12, 1), (3, 10, 10, 1), (4, 8, 8, 1))):
        draw = np.random.default_rng(k)
        layers = [
            (draw.normal(size=(o, i)) / i**0.5, 0.5 * draw.normal(size=o))
            for i, o in itertools.pairwise(sizes)
        ]
        theirs = affinitree.Architecture(sizes[0])
        for j, (W, b) in enumerate(layers):
            theirs.linear(affinitree.AffFunc.from_mats(W, b))
            if j < len(layers) - 1:
                theirs.relu()
        build = lambda layers=layers: tr.model_tree(layers, max_leaves=100_000)
        peer = lambda theirs=theirs: affinitree.builder.from_layers(theirs)
        (tree, mine), (other, took) = fastest(build), fastest(peer)
        leaves = f"{len(tree.leaves)} / {other.num_terminals()}"
        print(f"| {sizes} | {leaves} | {mine:.3f} / {took:.3f} | {mine / took:.2f} |", flush=True)


def fastest(call, repeats=5):
    """What it gives, and the least processor seconds of a few calls."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        found = call()
        seconds.append(time.process_time() - start)
    return found, min(seconds)


if __name__ == "__main__":
    main()
