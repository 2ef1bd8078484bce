# Written by .ci/stubs.py from the tables in __init__.py. Do not edit by hand.

from hjcontrol.reproduction.questions import double_descent as double_descent
from hjcontrol.reproduction.questions import scaling as scaling
from hjcontrol.reproduction.questions import solitons as solitons

__all__ = [
    "double_descent",
    "scaling",
    "solitons",
]
