r"""Checkpoints: a run that is interrupted at any moment and resumed ends as if it had not been.

    hj.solve(problem, method, init=weights, checkpoint="run", resume=True)

A checkpoint is everything that the next step depends on: the method's whole state (weights, optimiser,
keys, counters), the history and the clock, at the end of a chunk of steps. How many steps a chunk has is
data to one compiled program, so neither it nor the time of day enters the result: resumed on the same
machine with the same versions, the run repeats the very bits.

    DIR/checkpoint-000000001234.npz      one array a leaf, and `header`, JSON as bytes

Files are NPZ without pickles, written beside their place, synced and renamed; the one before is kept. A
damaged file is passed over with a warning. The header identifies problem, method, options, start and
versions: another problem is refused with what differs, other versions are warned of.
"""

import dataclasses
import hashlib
import io
import json
import os
import platform
import re
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.files import write_atomically
from hjcontrol._ground.fingerprint import CODE, describe, digest

FORMAT = 2
_NAME = re.compile(r"checkpoint-(\d{12})\.npz")
_PACKAGES = ("hjcontrol", "jax", "jaxlib", "equinox", "optax", "numpy")


_SURROUNDINGS = {  # what a run cannot go on without
    "x64": "Set `jax.config.update('jax_enable_x64', ...)` as it was then, or begin again elsewhere.",
    "devices": "Resume with as many devices, or begin again in another folder.",
}


class CheckpointError(ValueError):
    """A folder of checkpoints does not fit what was asked; the message says what differs."""


@admits(every=">= 0", keep=">= 2")
@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where checkpoints go and how often.

    - `folder`: made if it does not exist; one run a folder.
    - `every`: seconds between two, at least; 0 writes one after each chunk of steps. One is also
      written at the start, at the end and on Ctrl-C.
    - `keep`: how many stay; two or more, so that a damaged one is no loss.
    """

    folder: str | os.PathLike[str]
    every: float | int = 30.0
    keep: int = 2

    def __post_init__(self):
        if not self.every >= 0:
            raise ValueError(f"Checkpoint: `every` must be >= 0 seconds; found {self.every}.")
        if self.keep < 2:
            raise ValueError(
                f"Checkpoint: `keep` must be >= 2, so that a damaged one is no loss; found {self.keep}."
            )


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A run between two chunks: state, steps, history (rows of seconds, J, stationarity),
    seconds, the next chunk's limit."""

    state: Any
    steps: int
    rows: Any
    seconds: float
    chunk: int


def identity(problem: Any, solver: Any, weights: Any, key: Any) -> dict[str, dict[str, str]]:
    """What a run is: problem, method with its options, start, key; and the versions it runs under."""
    found = {p: version(p) for p in _PACKAGES}
    found |= {
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "devices": str(jax.device_count()),
        "x64": str(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    run = {"problem": problem, "method": solver, "start": weights, "key": key}
    return {name: describe(part) for name, part in run.items()} | {"versions": found}


class Keeper:
    """Writes and reads the checkpoints of one run in one folder.

    **Raises:** `CheckpointError` if the folder holds checkpoints and they were not asked for.
    """

    def __init__(self, place: Checkpoint, run: dict[str, dict[str, str]], resume: bool):
        self.place, self.run = place, run
        self.folder = Path(place.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise CheckpointError(
                f"solve: `checkpoint` must be a folder; {self.folder} is a file. Choose another place."
            ) from None
        for left in self.folder.glob(".hjcontrol-*.tmp"):  # by a writer that was killed
            left.unlink(missing_ok=True)
        if not resume and self.files():
            raise CheckpointError(
                f"solve: {self.folder} already holds a checkpoint ({self.files()[-1].name}). Continue "
                "it with `resume=True`, or choose another folder."
            )

    def files(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        return sorted(p for p in self.folder.iterdir() if _NAME.fullmatch(p.name))

    def write(self, snapshot: Snapshot) -> Path:
        """Write a checkpoint, then let the oldest go."""
        return _write(self, snapshot)

    def keep(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, or warn that there was no room for it: the run goes on, and the newest
        whole one stays."""
        try:
            self.write(snapshot)
        except OSError as error:
            whole = self.files()
            warnings.warn(
                f"{error.filename} could not be written ({error.strerror}). The run goes on; "
                f"{whole[-1] if whole else 'no checkpoint'} is the newest whole one. Make room.",
                stacklevel=3,
            )

    def newest(self, like: Any) -> Snapshot | None:
        """The newest whole checkpoint as a state structured like `like` (arrays or their shapes);
        `None` if there is none.

        **Raises:** `CheckpointError` for another run's, or if all are damaged.
        """
        files, damaged = self.files()[::-1], []
        for path in files:
            try:
                header, arrays = _read(path)
            except CheckpointError:  # whole, but of another format: no damage
                raise
            except Exception as error:  # whatever damaged bytes make zipfile, zlib or NumPy raise
                warnings.warn(
                    f"{path} is damaged ({error}); the one before is taken.", stacklevel=3
                )
                damaged.append(path)
                continue
            _check_run(self, path, header["run"])
            snapshot = _snapshot(path, header, arrays, like)
            for other in damaged:  # or they would count among those kept, being of later steps
                os.replace(other, other.with_suffix(".damaged"))
            return snapshot
        if files:
            raise CheckpointError(
                f"solve: every checkpoint in {self.folder} is damaged ({len(files)} found). Remove the "
                "folder and begin again."
            )
        return None


def _write(keeper: Keeper, snapshot: Snapshot) -> Path:
    leaves = jax.tree.leaves(eqx.filter(snapshot.state, eqx.is_array))
    arrays = {f"leaf{i}": _plain(a) for i, a in enumerate(leaves)} | {
        "history": np.asarray(snapshot.rows, float).reshape(-1, 3)
    }
    header = {
        "format": FORMAT,
        "steps": snapshot.steps,
        "seconds": snapshot.seconds,
        "chunk": snapshot.chunk,
        "keys": {
            f"leaf{i}": str(jax.random.key_impl(a)) for i, a in enumerate(leaves) if _is_key(a)
        },
        "run": keeper.run,
    }
    header["digest"] = _digest(header, arrays)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, header=text, **arrays)
    name = f"checkpoint-{snapshot.steps:012d}.npz"
    try:
        path = write_atomically(keeper.folder / name, buffer.getvalue())
    except OSError as error:
        size = f"{buffer.getbuffer().nbytes} bytes were to be written"
        raise OSError(error.errno, f"{error.strerror}; {size}", str(keeper.folder / name)) from None
    for old in keeper.files()[: -keeper.place.keep]:
        old.unlink(missing_ok=True)
    return path


def _check_run(keeper: Keeper, path: Path, run: dict[str, dict[str, str]]) -> None:
    then, now = run["versions"], keeper.run["versions"]
    for what, remedy in _SURROUNDINGS.items():
        if then.get(what) != now.get(what):
            raise CheckpointError(
                f"solve: {path} was written with {what} = {then.get(what)}; here it is "
                f"{now.get(what)}. {remedy}"
            )
    for part in ("problem", "method", "start", "key"):
        lines = _differences(run[part], keeper.run[part], then["python"] == now["python"])
        if lines:
            raise CheckpointError(
                f"solve: {path} is of another run; its {part} differs: {'; '.join(lines[:3])}"
                f"{f' (and {len(lines) - 3} more)' if len(lines) > 3 else ''}. Resume with what "
                "was asked then, or choose another folder."
            )
    lines = _differences(then, now, True)
    if lines:
        warnings.warn(
            f"{path} was written under other versions ({'; '.join(lines)}); the resumed run may "
            "differ in last digits.",
            stacklevel=4,
        )


def _differences(then: dict[str, str], now: dict[str, str], same_python: bool) -> list[str]:
    keys = [k for k in dict.fromkeys([*now, *then]) if same_python or not k.endswith(CODE)]
    absent = "absent"
    return [
        f"{k.lstrip('.') or 'type'}: {then.get(k, absent)} then, {now.get(k, absent)} now"
        for k in keys
        if then.get(k) != now.get(k)
    ]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    # NPZ knows no bfloat16 and its kin: their bits go in as integers.
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _digest(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """Over the header, which comes without its digest, and over every array."""
    lines = [f"{name} {digest(arrays[name])}" for name in sorted(arrays)]
    text = "\n".join([json.dumps(header, sort_keys=True), *lines])
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a whole file.

    **Raises:** `ValueError`, `OSError`, `KeyError` or `EOFError` for a damaged one.
    """
    import zipfile

    try:
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None
    header = json.loads(arrays.pop("header").tobytes())
    if header["format"] != FORMAT:
        raise CheckpointError(
            f"solve: {path} has format {header['format']}; this version reads {FORMAT}. Resume it with "
            "the version that wrote it."
        )
    told = header.pop("digest")
    if _digest(header, arrays) != told:
        raise ValueError("its content does not match its digest")
    return header, arrays


def _snapshot(path: Path, header: dict, arrays: dict[str, np.ndarray], like: Any) -> Snapshot:
    shaped = lambda a: eqx.is_array(a) or isinstance(a, jax.ShapeDtypeStruct)
    dynamic, static = eqx.partition(like, shaped)
    wanted, structure = jax.tree.flatten(dynamic)
    names = {"history", *(f"leaf{i}" for i in range(len(wanted)))}
    lacking = sorted(names - set(arrays)) + sorted(
        {"steps", "seconds", "chunk", "keys"} - set(header)
    )
    if lacking or len(arrays) != len(names):
        raise CheckpointError(
            f"solve: {path} holds {len(arrays) - 1} arrays; the method's state has {len(wanted)}"
            f"{f', and it lacks {lacking[0]}' if lacking else ''}. It was written by another version: "
            "begin again in another folder."
        )
    rows, keys = arrays["history"], header["keys"]
    leaves = [
        _leaf(path, arrays[f"leaf{i}"], want, keys.get(f"leaf{i}")) for i, want in enumerate(wanted)
    ]
    state = eqx.combine(jax.tree.unflatten(structure, leaves), static)
    return Snapshot(state, header["steps"], rows, header["seconds"], header["chunk"])


def _leaf(path: Path, array: np.ndarray, want: Any, implementation: str | None) -> jax.Array:
    if implementation is not None:
        leaf = jax.random.wrap_key_data(jnp.asarray(array), impl=implementation)
    else:
        exotic = np.dtype(want.dtype).kind == "V"
        leaf = jnp.asarray(array.view(want.dtype) if exotic else array)
    if leaf.shape != want.shape or leaf.dtype != want.dtype:
        raise CheckpointError(
            f"solve: {path} holds an array {leaf.dtype}{list(leaf.shape)} where the method's state has "
            f"{want.dtype}{list(want.shape)}. Was 64-bit precision switched on then?"
        )
    return leaf
