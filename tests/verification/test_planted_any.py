"""The benchmark of planted faults, at a size for every day: all at the right place, no false alarm."""

import importlib.util
import pathlib

import pytest

from tests.slow import asked_for

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "planted_any.py"


@pytest.fixture(scope="module")
def planted():
    spec = importlib.util.spec_from_file_location("planted_any", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("first", [0, 6])
def test_faults_are_found_where_they_are_and_nowhere_else(planted, first):
    missed, alarms = planted.counts(6 if asked_for() else 4, first)
    assert missed == []
    assert alarms == []
