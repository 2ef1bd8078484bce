"""Bad calls, files, command lines, sabotage, kills and threads, at a nightly size, counted.

    python fuzz.py [ROUNDS] [SEED]            # 3 rounds by default, about a quarter of an hour

| line | tried | right |
|---|---|---|
| calls | every public callable, one argument spoilt | refused in the library's words, or NaN |
| good calls | every public callable | they run |
| labels | CSV files of labels spelt alike | kept apart as Python keeps them apart, or refused |
| bytes | files of random and damaged bytes | data, or `DataError` |
| lines | the corpus and mutations of it | exit 0, 1, 2, 3, 130 and at most one line of error |
| sabotages | checkpoints with a byte changed | the run ends in the very bits, or `CheckpointError` |
| interruptions | Ctrl-C up to three times within 20 ms, SIGTERM, SIGHUP | exit 130, one line |
| threads | processes and threads that write one name | none fails, the file is whole |

What is wrong is printed, and the exit code is 1.
"""

import contextlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings

import jax
import numpy as np
from harness import header, row

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
jax.config.update("jax_enable_x64", True)

from hjcontrol._ground.files import write_atomically  # noqa: E402
from hjcontrol.cli import main as command  # noqa: E402
from hjcontrol.data import DataError, load  # noqa: E402
from hjcontrol.solvers.checkpoint import CheckpointError  # noqa: E402
from tests.faults import bad_values, corpus, good_calls, test_bad_calls, test_files  # noqa: E402
from tests.solvers.interrupted import bits, run  # noqa: E402

FAULTS = []


def told(what, tried, wrong, clock):
    """One row of the table; the faults are kept for the end."""
    FAULTS.extend(f"{what}: {w}" for w in wrong)
    row(what=what, tried=tried, right=tried - len(wrong), seconds=time.perf_counter() - clock)


def calls(draw, rounds):
    clock, wrong, tried = time.perf_counter(), [], 0
    for who in good_calls.calls():
        found, count = test_bad_calls.faults(who)
        wrong += [f"{who}: {f}" for f in found]
        tried += count
    told("calls", tried, wrong, clock)
    clock, wrong, every = time.perf_counter(), [], good_calls.calls()
    del every["data.npz_arrays"]  # it names a file
    for who, made in every.items():
        function, arguments = made()
        try:
            with bad_values.limited(120):
                function(**arguments)
        except BaseException as error:
            wrong.append(f"{who}: {type(error).__name__}: {error}"[:200])
    told("good calls", len(every), wrong, clock)


def labels(draw, rounds):
    clock, wrong, tried = time.perf_counter(), [], 200 * rounds
    for k in range(tried):
        spelt = draw.sample(test_files.TRICKY, draw.randint(2, 5))
        texts = [s for s in spelt for _ in range(2)]
        draw.shuffle(texts)
        try:
            found = test_files.classes_of(pathlib.Path(f"labels{k}.csv"), texts)
        except DataError:
            continue
        same = lambda names: [[a == b for b in names] for a in names]
        if same(found) != same([t.strip() for t in texts]):
            wrong.append(repr(spelt))
    told("labels", tried, wrong, clock)
    clock, wrong = time.perf_counter(), []
    np.savez("whole.npz", X=np.ones((4, 2)), y=np.array([0, 1, 0, 1]))
    whole = {".npz": pathlib.Path("whole.npz").read_bytes(), ".csv": b"a,b,t\n1,2,x\n3,4,y\n" * 2}
    for k in range(tried):
        kind = draw.choice([".csv", ".npz"])
        content = bytearray(whole[kind])
        for _ in range(draw.randint(1, 6)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path = pathlib.Path(f"bytes{k}{kind}")
        path.write_bytes(content[: draw.randint(0, len(content))] if k % 3 else content)
        try:
            with bad_values.limited(20), contextlib.suppress(DataError):
                load(path)
        except BaseException as error:
            wrong.append(f"{bytes(content)!r}: {type(error).__name__}: {error}"[:300])
        path.unlink()
    told("bytes", tried, wrong, clock)


def lines(draw, rounds):
    clock, wrong, tried = time.perf_counter(), [], 0
    for name, text in corpus.FILES.items():
        pathlib.Path(name).write_text(text)
    texts = [*corpus.REFUSED.values(), corpus.SMALL]
    mutated = [_mutated(draw, draw.choice(texts)) for _ in range(20 * rounds)]
    asked = [(text, ["solve", "p.toml", "--out", "out"]) for text in [*texts, *mutated]]
    asked += [("", line) for line in corpus.LINES.values()]
    for text, line in asked:
        pathlib.Path("p.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
        said = io.StringIO()
        try:
            with (
                bad_values.limited(300),
                contextlib.redirect_stderr(said),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                code = command(line)
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
        tried += 1
        if code not in (0, 1, 2, 3) or len(said.getvalue().splitlines()) > 1:
            wrong.append(f"{line} {text[-80:]!r}: {code} {said.getvalue()[:200]}")
    told("lines", tried, wrong, clock)


def _mutated(draw, text):
    """A text with a value replaced, a line repeated, dropped or cut."""
    parts = text[:400].split("\n")
    k = draw.randrange(len(parts))
    values = [
        "[]",
        "{}",
        '""',
        "nan",
        "-1",
        "1e400",
        "true",
        "1e-308",
        '"\\u0000"',
        "0",
        "2000000000",
    ]
    how = draw.randrange(4)
    if how == 0 and "=" in parts[k]:
        parts[k] = parts[k].split("=")[0] + "= " + draw.choice(values)
    elif how == 1:
        parts.insert(k, parts[k])
    elif how == 2:
        del parts[k]
    else:
        parts[k] = parts[k][: draw.randint(0, len(parts[k]))]
    return "\n".join(parts)


def sabotages(draw, rounds):
    clock, wrong, tried = time.perf_counter(), [], 10 * rounds
    whole, folder = bits(run("minibatches", 300)), pathlib.Path("sabotage")
    from hjcontrol.solvers import Checkpoint

    run("minibatches", 100, checkpoint=Checkpoint(folder, every=0))
    kept = {p.name: p.read_bytes() for p in folder.iterdir()}
    for _ in range(tried):
        for name, content in kept.items():
            (folder / name).write_bytes(content)
        name = max(kept) if draw.random() < 0.7 else min(kept)
        content = bytearray(kept[name])
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] ^= draw.randint(1, 255)
        (folder / name).write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = bits(run("minibatches", 300, checkpoint=folder, resume=True))
            if any(a.tobytes() != b.tobytes() for a, b in zip(found, whole, strict=True)):
                wrong.append("other bits")
        except CheckpointError:
            pass
        except BaseException as error:
            wrong.append(f"{type(error).__name__}: {error}"[:200])
        shutil.rmtree(folder)
        folder.mkdir()
    told("sabotages", tried, wrong, clock)


def interruptions(draw, rounds):
    clock, wrong, tried = time.perf_counter(), [], 4 * rounds
    pathlib.Path("long.toml").write_text(
        corpus.SMALL.replace("max-steps = 2", "max-steps = 4000000")
    )
    for k in range(tried):
        line = [
            sys.executable,
            "-c",
            "import sys; from hjcontrol.cli import main; sys.exit(main())",
        ]
        line += [
            "solve",
            "long.toml",
            "--checkpoint",
            f"run{k}",
            "--every",
            "0.2",
            "--out",
            f"o{k}",
        ]
        process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        begun = time.monotonic()
        while not list(pathlib.Path(f"run{k}").glob("*.npz")) and time.monotonic() - begun < 120:
            time.sleep(0.05)
        time.sleep(draw.uniform(0.3, 1.5))
        which = draw.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        for _ in range(1 + k % 3):
            process.send_signal(which)
            time.sleep(draw.uniform(0, 0.01))
        _, err = process.communicate(timeout=120)
        if process.returncode != 130 or len(err.splitlines()) != 1 or "Go on with" not in err:
            wrong.append(f"{which.name} x {1 + k % 3}: {process.returncode} {err[:300]}")
    told("interruptions", tried, wrong, clock)


def threads(draw, rounds):
    clock, wrong, path = time.perf_counter(), [], pathlib.Path("shared.json")
    count = 16 * rounds

    def write(i):
        try:
            for _ in range(20):
                write_atomically(path, json.dumps([i] * 200))
                json.loads(path.read_text())
        except BaseException as error:
            wrong.append(f"{type(error).__name__}: {error}")

    started = [threading.Thread(target=write, args=(i,)) for i in range(count)]
    for t in started:
        t.start()
    for t in started:
        t.join()
    told("threads", count, wrong, clock)


def main(rounds, seed):
    header("Nothing lost, nothing silent")
    draw = random.Random(seed)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for part in (threads, labels, lines, sabotages, interruptions, calls):
            part(draw, rounds)
    print(*FAULTS, sep="\n")
    return 1 if FAULTS else 0


if __name__ == "__main__":
    asked = [int(a) for a in sys.argv[1:3]]
    sys.exit(main(*asked, *(3, 0)[len(asked) :]))
