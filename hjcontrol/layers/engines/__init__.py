"""Engines that solve a layer's program, and the rules that differentiate it, by kind of program."""

from hjcontrol.layers.engines.table import ENGINES, KINDS, Kind, kind_of, lacks, solve

__all__ = ["ENGINES", "KINDS", "Kind", "kind_of", "lacks", "solve"]
