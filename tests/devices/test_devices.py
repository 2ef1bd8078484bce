"""Samples on several devices and in several processes: the numbers of one device, nothing gathered."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.devices import processes

ROOT = pathlib.Path(__file__).parents[2]


def started(module, *arguments):
    words = [sys.executable, "-m", module, *map(str, arguments)]
    there = {"cwd": ROOT, "env": os.environ | {"JAX_PLATFORMS": "cpu"}, "text": True}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **there)


def ended(process):
    out, words = process.communicate(timeout=240)
    assert process.returncode == 0, words[-3000:]
    return out


@pytest.fixture(scope="module")
def told():
    """What four virtual devices found, by the kind of their axes."""
    lines = ended(started("tests.devices.meshes")).splitlines()
    return {row["kind"]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_four_devices_find_what_one_finds(told, kind):
    row = told[kind]
    assert row["backpropagate"] <= 1e-14
    assert row["solve"] <= 1e-12
    assert row["loader"] <= 1e-12
    assert (row["pieces"], row["rows"]) == (4, 4)  # states stay where their samples are


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_no_sample_is_gathered(told, kind):
    assert told[kind]["reduces"]
    assert not told[kind]["gathers"]
    assert told[kind]["twin gathers"]  # a program that gathers them is told apart


def test_a_mesh_that_was_set_is_set_aside(told):
    row = told["ambient"]
    assert row["solve"] <= 1e-12
    assert row["model"] <= 1e-12
    assert "`inputs` on 4 devices and `targets` on 2 devices" in row["two meshes"]
    assert row["sum"]  # what comes back is on the mesh that is set
    assert row["kept"]
    assert "objective: found a mesh of Explicit axes under jit" in row["under jit"]


def test_two_processes_find_what_one_finds(tmp_path):
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    both = [
        started("tests.devices.processes", rank, 2, port, tmp_path / "w.npz") for rank in (0, 1)
    ]
    try:
        for process in both:
            ended(process)
    finally:
        for process in both:
            process.kill()
            for pipe in (process.stdout, process.stderr):
                pipe.close()
    problem = processes.stated(processes.X, processes.Y)
    start = problem.init(jax.random.key(0))
    alone = processes.trained(problem, start)
    with np.load(tmp_path / "w.npz") as found:
        for a, name in zip(jax.tree.leaves(alone.weights), found, strict=True):
            np.testing.assert_allclose(found[name], a, atol=1e-12)
        moved = jax.tree.leaves(start)[0] - found[found.files[0]]
    assert np.abs(moved).max() > 0.1  # the twin: it did train
