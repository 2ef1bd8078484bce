"""scikit-learn's face of the theory: fit and predict, and questions that the theory answers."""

from hjcontrol._ground.lazy import lazily

_HOMES = {
    "ControlledNetClassifier": ".controlled",
    "ControlledNetRegressor": ".controlled",
    "FitCertificate": ".certificate",
    "LSEClassifier": ".soft_maxima",
    "LSERegressor": ".soft_maxima",
    "MaxAffineRegressor": ".hard_maxima",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
__all__ = __dir__()
