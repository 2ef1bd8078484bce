"""Checkpoints as a state machine: written, torn, damaged, read by another process, in any order.

The model is the list of what was written whole and not harmed since; `newest` is its last, always.
"""

import errno
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import binary, integers, sampled_from

from hjcontrol._ground import files
from hjcontrol.solvers import checkpoint as module
from hjcontrol.solvers.checkpoint import Checkpoint, CheckpointError, Keeper, Snapshot

NAMES = ("problem", "method", "start", "key")
RUN = {name: {} for name in NAMES} | {"versions": {"python": "any", "x64": "True", "devices": "1"}}


class Run(RuleBasedStateMachine):
    """One folder of checkpoints, and what must be in it."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.steps, self.whole = 0, []
        self.keeper = Keeper(Checkpoint(self.folder, keep=2), RUN, resume=True)

    def snapshot(self):
        self.steps += 1
        return Snapshot(np.full(3, float(self.steps)), self.steps, [], 0.0, 1)

    @rule()
    def written(self):
        self.keeper.write(self.snapshot())
        self.whole = [*self.whole, self.steps]

    @rule(moment=sampled_from(["fsync", "replace"]), error=sampled_from([errno.ENOSPC, None]))
    def torn(self, moment, error):
        def fails(*arguments):
            raise KeyboardInterrupt if error is None else OSError(error, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files.os, moment, fails)
            if error is None:
                with pytest.raises(KeyboardInterrupt):
                    self.keeper.keep(self.snapshot())
            else:
                with pytest.warns(UserWarning, match="could not be written"):
                    self.keeper.keep(self.snapshot())

    @precondition(lambda self: self.keeper.files())
    @rule(at=integers(0, 400), value=integers(1, 255))
    def damaged(self, at, value):
        path = self.keeper.files()[-1]
        content = bytearray(path.read_bytes())
        if not content:
            return
        content[at % len(content)] ^= value
        path.write_bytes(content)
        try:
            module._read(path)
        except (CheckpointError, OSError, ValueError, KeyError, EOFError):
            step = int(path.name[11:23])
            self.whole = [s for s in self.whole if s != step]

    @rule(content=binary(max_size=60))
    def foreign(self, content):
        """Somebody else's file under a checkpoint's name, of a later step."""
        self.steps += 1
        (self.folder / f"checkpoint-{self.steps:012d}.npz").write_bytes(content)

    @rule()
    def read(self):
        self.keeper = Keeper(Checkpoint(self.folder, keep=2), RUN, resume=True)
        names = [p.name for p in self.keeper.files()]
        there = [s for s in self.whole if f"checkpoint-{s:012d}.npz" in names]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not there:
                try:
                    assert self.keeper.newest(np.zeros(3)) is None
                except CheckpointError:
                    shutil.rmtree(self.folder)
                    self.folder.mkdir()
                return
            found = self.keeper.newest(np.zeros(3))
        assert found.steps == there[-1]
        np.testing.assert_array_equal(found.state, np.full(3, float(there[-1])))

    @invariant()
    def nothing_is_half_written(self):
        assert not list(self.folder.glob(".*"))

    def teardown(self):
        shutil.rmtree(self.folder)


TestRun = Run.TestCase
TestRun.settings = settings(max_examples=25, stateful_step_count=20)
