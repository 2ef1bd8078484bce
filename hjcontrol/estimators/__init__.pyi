# Written by .ci/stubs.py from the tables in __init__.py. Do not edit by hand.

from hjcontrol.estimators.certificate import FitCertificate as FitCertificate
from hjcontrol.estimators.controlled import ControlledNetClassifier as ControlledNetClassifier
from hjcontrol.estimators.controlled import ControlledNetRegressor as ControlledNetRegressor
from hjcontrol.estimators.hard_maxima import MaxAffineRegressor as MaxAffineRegressor
from hjcontrol.estimators.soft_maxima import LSEClassifier as LSEClassifier
from hjcontrol.estimators.soft_maxima import LSERegressor as LSERegressor

__all__ = [
    "ControlledNetClassifier",
    "ControlledNetRegressor",
    "FitCertificate",
    "LSEClassifier",
    "LSERegressor",
    "MaxAffineRegressor",
]
