"""A run killed at random moments and resumed, against the same run left alone: are the bits the same?

    python kill_and_resume.py [KILLS] [SEED]

Each method's run is a process of its own, which SIGKILL ends: every second time at a random moment,
every other time while the temporary file of a checkpoint exists, which is in the middle of writing it.
(Syncing is slowed by 50 ms a checkpoint, so that this half can be met.) Then one process ends the run.
"""

import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from harness import header, row

ROOT = pathlib.Path(__file__).parents[1]
STEPS = {"minibatches": 12000, "newton": 200}


def start(folder: pathlib.Path, method: str, run: str) -> subprocess.Popen:
    """The run in `folder/run`, its result in `folder/run.npz`."""
    line = ["-m", "tests.solvers.interrupted", folder / run, method, str(STEPS[method])]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        "PATH": "",
    }
    return subprocess.Popen(
        [sys.executable, *map(str, line), str(folder / f"{run}.npz")],
        cwd=ROOT,
        env=cache,
        stdout=subprocess.PIPE,
    )


def kill(process: subprocess.Popen, folder: pathlib.Path, writing: bool, delay: float) -> str:
    """Kill a run, and say where it was met."""
    process.stdout.readline()  # it is in its loop
    time.sleep(delay)
    met = "running"
    while writing and process.poll() is None:
        if list(folder.glob(".*.tmp")):
            met = "writing"
            break
    if process.poll() is not None:
        met = "ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return met


def main(kills: int, seed: int) -> None:
    header("Killed at random moments and resumed")
    draw = random.Random(seed)
    for method in STEPS:
        with tempfile.TemporaryDirectory() as name:
            folder, clock = pathlib.Path(name), time.perf_counter()
            assert start(folder, method, "whole").communicate()[0]
            met = []
            while len(met) < kills:
                process = start(folder, method, "killed")
                met.append(
                    kill(process, folder / "killed", len(met) % 2 == 1, draw.uniform(0.0, 0.12))
                )
                if met[-1].startswith("ended"):
                    break
            process = start(folder, method, "killed")
            process.communicate()
            assert process.returncode == 0
            with np.load(folder / "whole.npz") as a, np.load(folder / "killed.npz") as b:
                equal = all(a[k].tobytes() == b[k].tobytes() for k in a.files)
                size = sum(a[k].size for k in a.files)
            counts = {k: met.count(k) for k in dict.fromkeys(met)}
            row(
                method=method,
                steps=STEPS[method],
                kills=len(met),
                met=counts,
                numbers_compared=size,
                bits_equal=equal,
                seconds=time.perf_counter() - clock,
            )


if __name__ == "__main__":
    asked = [int(a) for a in sys.argv[1:3]]
    main(*asked, *(24, 0)[len(asked) :])
