# Written by .ci/stubs.py from the tables in __init__.py. Do not edit by hand.

from hjcontrol.analysis import attribution as attribution
from hjcontrol.analysis import bifurcation as bifurcation
from hjcontrol.analysis import continual as continual
from hjcontrol.analysis import dimension as dimension
from hjcontrol.analysis import extrapolation as extrapolation
from hjcontrol.analysis import robustness as robustness
from hjcontrol.analysis import temperature as temperature
from hjcontrol.analysis import tree as tree

__all__ = [
    "attribution",
    "bifurcation",
    "continual",
    "dimension",
    "extrapolation",
    "robustness",
    "temperature",
    "tree",
]
