"""Targets as scikit-learn gives them, and what classifiers share."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data


def encoded(estimator: Any, y: Any) -> np.ndarray:
    """Classes as numbers 0, 1, ...; sets `classes_`.

    **Raises:** `ValueError` for one class, or targets that are no classes.
    """
    check_classification_targets(y)
    estimator.classes_, numbers = np.unique(y, return_inverse=True)
    if len(estimator.classes_) < 2:
        raise ValueError(
            f"{type(estimator).__name__}: two classes or more are needed; found one class, "
            f"{np.asarray(estimator.classes_).tolist()[0]!r}."
        )
    return numbers


def real_targets(estimator: Any, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Samples and real targets as float64; NaN is refused."""
    X, y = validate_data(estimator, X, y, dtype=float, y_numeric=True, ensure_min_samples=2)
    return X, np.asarray(y, float)


def whole(estimator: Any, *names: str) -> None:
    """Refuse parameters that count things and are no whole numbers, at least one.

    **Raises:** `ValueError` naming the parameter.
    """
    for name in names:
        found = getattr(estimator, name)
        if not isinstance(found, Integral) or isinstance(found, bool) or found < 1:
            raise ValueError(
                f"{type(estimator).__name__}: `{name}` must be a whole number, at least 1; found "
                f"{found!r}."
            )


class Classifying:
    """Predictions from scores `(n, classes)` whose softmax is the probability."""

    classes_: np.ndarray
    _points: Callable[[Any], np.ndarray]  # checked samples
    _scores: Callable[[np.ndarray], np.ndarray]

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest score, for each sample."""
        scores = self._scores(self._points(X))
        return self.classes_[scores.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, `(n, classes)`."""
        return softmax(self._scores(self._points(X)), axis=1)

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores `(n, classes)`; of two classes the second's lead, `(n,)`."""
        scores = self._scores(self._points(X))
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores
