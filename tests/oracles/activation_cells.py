"""Cells of a hyperplane arrangement: counted by the formula, and seen by their activation patterns."""

import math

import numpy as np


def generic_cells(n, d):
    """How many cells `n` hyperplanes in general position cut space of `d` dimensions into."""
    return sum(math.comb(n, k) for k in range(d + 1))


def patterns_seen(W, b, X):
    """How many different activation patterns of `W x + b > 0` occur among points `X`."""
    return len(np.unique(X @ W.T + b[None] > 0, axis=0))


def relu_network(layers, X):
    """The network itself, one layer after another; no activation after the last."""
    for k, (W, b) in enumerate(layers):
        X = X @ W.T + b[None]
        if k < len(layers) - 1:
            X = np.maximum(X, 0.0)
    return X
