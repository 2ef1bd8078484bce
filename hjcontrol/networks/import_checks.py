"""Does an imported model predict what the model itself does? Asked of both, at points of many sizes.

A library's class may do more than its arrays say: a link function, a clipped scaler, pairs of classes.
What differs is refused rather than read.
"""

import sys
import warnings
from typing import Any

import jax
import numpy as np

from hjcontrol.networks.foreign_models import Layer

POINTS = 24
TOL = 1e-9  # relative, in float64


def _points(count: int) -> np.ndarray:
    """Normal draws of sizes from a hundredth to a hundred."""
    draw = np.random.default_rng(0)
    sizes = 10.0 ** draw.uniform(-2, 2, size=(POINTS, 1))
    return sizes * draw.normal(size=(POINTS, count))


def _read(layers: list[Layer], points: np.ndarray) -> np.ndarray:
    """Outputs of what was read, in float64: `(POINTS, outputs)`."""
    z = points
    with jax.enable_x64(True):
        for W, b, sigma in layers:
            z = np.asarray(sigma(jax.numpy.asarray(z @ W.T + b)))
    return z


def agrees_with_sklearn(model: Any, layers: list[Layer], labels: Any) -> None:
    """Refuse a scikit-learn model whose answers are not those of its layers.

    **Raises:** `ValueError`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = _points(int(model.n_features_in_))
        z = _read(layers, X)
        if labels is None:
            _compare(model, "predict", np.asarray(model.predict(X), float).reshape(z.shape), z)
            return
        if z.shape[1] == 1:  # the logit of the second class
            z = np.hstack([0 * z, z])
        if hasattr(model, "predict_proba"):
            high = z - z.max(axis=1, keepdims=True)
            ours = np.exp(high) / np.exp(high).sum(axis=1, keepdims=True)
            _compare(model, "predict_proba", np.asarray(model.predict_proba(X), float), ours)
            return
        scores = np.asarray(model.decision_function(X), float)
        ours = z[:, 1] - z[:, 0] if scores.ndim == 1 else z
        _compare(model, "decision_function", scores, ours)


def agrees_with_torch(model: Any, layers: list[Layer]) -> None:
    """Refuse a PyTorch module whose values, in evaluation mode, are not those of its layers.

    **Raises:** `ValueError`.
    """
    torch = sys.modules["torch"]
    first = next(model.parameters())
    X = _points(first.shape[1])
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            theirs = model(torch.as_tensor(X, dtype=first.dtype, device=first.device))
    finally:
        model.train(training)
    theirs = np.asarray(theirs.double().cpu())
    _compare(
        model, "forward", theirs, _read(layers, X), 1e-5 if first.dtype != torch.float64 else TOL
    )


def _compare(
    model: Any, asked: str, theirs: np.ndarray, ours: np.ndarray, tol: float = TOL
) -> None:
    same = theirs.shape == ours.shape
    apart = np.abs(theirs - ours) if same else np.array(np.inf)
    size = (
        np.abs(theirs).max(axis=-1, keepdims=True) if same and theirs.ndim > 1 else np.abs(theirs)
    )
    if same and np.isfinite(apart).all() and (apart <= tol * (1 + size)).all():
        return
    found = f"differs from it by up to {apart.max():.3g}" if same else "has another shape"
    raise ValueError(
        f"from_model: what the arrays of this {type(model).__name__} say {found} in `{asked}`: it is "
        "more than affine layers with activations between them. Give the layers you mean as pairs."
    )
