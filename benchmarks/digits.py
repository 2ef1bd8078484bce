"""The digits problem that every benchmark here solves: what `hjcontrol crosscheck` trains."""

import numpy as np
from sklearn.datasets import load_digits

import hjcontrol as hj


def digits(
    samples: int = 1797,
    width: int = 16,
    depth: int = 8,
    step: float = 0.25,
    ridge: float = 1e-3,
    dtype: type = np.float64,
) -> hj.ControlProblem:
    """Digits, standardised, lifted to `width`, `depth` residual tanh stages, readout to ten classes."""
    features, labels = load_digits(return_X_y=True)
    scale = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    nets = hj.networks
    stages = [
        nets.lift(features.shape[1], width),
        *[nets.Residual(nets.Dense(width, width), step)] * depth,
        nets.readout(width, 10),
    ]
    return hj.ControlProblem(
        stages,
        features[:samples].astype(dtype),
        labels[:samples],
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(ridge),
    )
