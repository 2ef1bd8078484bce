"""Engines that solve a layer's program, and the rules that differentiate it, by kind of program."""

from hjcontrol.layers.engines.table import ENGINES, KINDS, Kind, argmax, kind_of, lacks

__all__ = ["ENGINES", "KINDS", "Kind", "argmax", "kind_of", "lacks"]
