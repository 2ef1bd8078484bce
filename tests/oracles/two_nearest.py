"""Facco's two-nearest-neighbours estimate of dimension by maximum likelihood, by looking at all pairs."""

import numpy as np


class TwoNearest:
    """`dimension_ = n / sum log(r_2/r_1)`."""

    def fit(self, X):
        r = np.sort(np.linalg.norm(X[:, None] - X[None], axis=2), axis=1)
        self.dimension_ = len(X) / np.sum(np.log(r[:, 2] / r[:, 1]))
        return self
