"""Bad values for a right one, by what the right one is; and what became of a call with one.

An outcome is `clear` if a `raise` of the library's own gave `ValueError` or `TypeError`; `said` if a NaN
that went in came out. All else is a fault: an error of somebody else's, a hang, or an answer.
"""

import contextlib
import inspect
import linecache
import os
import signal
import traceback

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol

PACKAGE = os.path.dirname(hjcontrol.__file__)
SECONDS = 10
SIGNED = {"axis", "t0", "t1", "c", "lower", "upper", "lo", "hi", "ours", "bound", "expected", "residual",
          "y", "s", "h", "start", "slope", "lipschitz"}  # fmt: skip
ENDLESS = {
    "lower",
    "upper",
    "ours",
    "bound",
    "expected",
    "residual",
    "q",
}  # infinity means something
FREE = {"title", "name", "who", "path", "folder"}  # any text will do
ANY_RANK = {"z", "q", "p", "a", "y"}


class Object:
    """Something that is nothing to anybody."""

    def __repr__(self):
        return "Object()"


def bad_values(function, name, good):
    """What to try in place of `good`, by a short name: nothing that is an argument's own default."""
    parameter = inspect.signature(function).parameters.get(name)
    tried = {"text": "a", "object": Object(), "none": None}
    if parameter is not None and parameter.default is None:
        del tried["none"]
    return tried | _worse(name, good)


def _worse(name, good):
    if isinstance(good, (bool, np.bool_)):
        return {"number": 2.5}
    if isinstance(good, str):
        return {"number": 3, "text": Object() if name in FREE else "no such thing"}
    if isinstance(good, int):
        return {"fraction": 1.5, "nan": np.nan, "negative": -7, "vector": np.ones(3)}
    if isinstance(good, float):
        found = {"complex": 1j, "nan": np.nan, "matrix": np.ones((2, 2))}
        found |= {} if name in SIGNED else {"negative": -1.0}
        return found | ({} if name in ENDLESS else {"inf": np.inf})
    if _is_key(good):
        return {"number": 0, "fraction": 1.5}
    if isinstance(good, (jax.Array, np.ndarray)):
        return _bad_arrays(name, good)
    if isinstance(good, (tuple, list)) and all(isinstance(g, (int, float)) for g in good):
        negative = {} if name in SIGNED else {"negative": type(good)(-7 for _ in good)}
        return negative | {"nan": type(good)(np.nan for _ in good)}
    if isinstance(good, eqx.Module) or hasattr(good, "__dataclass_fields__"):
        return {"class": type(good), "number": 3}
    return {"number": 3}


def _bad_arrays(name, good):
    found = {} if name in ANY_RANK else {"extra axis": good[None]}
    found |= {"class": np.ndarray, "words": np.full(good.shape, "a")}
    if good.dtype.kind == "f":
        found |= {"complex": good + 1j, "nan": good * np.nan}
    else:
        found |= {"fractions": good + 0.5, "beyond": good + 100}
    return found


def _is_key(value):
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


class Hang(BaseException):
    """A call that did not come back."""


@contextlib.contextmanager
def limited(seconds=SECONDS):
    """Raise `Hang` in what takes longer."""

    def late(signum, frame):
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(function, arguments, who, name):
    """What became of a call: its kind, and words for a person."""
    try:
        with limited():
            value = function(**arguments)
    except Hang:
        return "hang", "did not come back"
    except (ValueError, TypeError) as error:
        return _judged(error, who, name)
    except BaseException as error:
        return "foreign", f"{type(error).__name__}: {error}"[:160]
    bad = arguments[name]
    if isinstance(bad, (float, np.ndarray, jax.Array)) and _nan(bad) and _nan(value):
        return "said", "a NaN came out"
    return "answer", repr(value)[:80]


def _judged(error, who, name):
    frames = traceback.extract_tb(error.__traceback__)
    ours = os.path.abspath(frames[-1].filename).startswith(PACKAGE)
    text = f"{type(error).__name__}: {error}"[:160]
    if not ours:
        return "foreign", text
    spoken = linecache.getline(frames[-1].filename, frames[-1].lineno).strip().startswith("raise")
    return ("clear" if spoken else "foreign"), text


def _nan(value):
    leaves = [a for a in jax.tree.leaves(value) if isinstance(a, (float, np.ndarray, jax.Array))]
    leaves = [np.asarray(a) for a in leaves if not _is_key(a)]
    return any(a.dtype.kind == "f" and bool(np.isnan(a).any()) for a in leaves)
