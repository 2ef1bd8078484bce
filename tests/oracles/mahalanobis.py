"""Mahalanobis score of far-out inputs: least squared distance to a class mean, one shared covariance."""

import numpy as np


def mahalanobis(train, labels, x, ridge=1e-3):
    """`train` (n, d) with `labels` 0, 1, ...; scores of the rows of `x`. The ridge is absolute."""
    means = np.stack([train[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    centred = train - means[labels]
    precision = np.linalg.inv(centred.T @ centred / len(train) + ridge * np.eye(train.shape[1]))
    away = x[:, None, :] - means[None]
    return np.einsum("nci,ij,ncj->nc", away, precision, away).min(axis=1)
