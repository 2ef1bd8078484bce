"""Bad values for a right one, by what the right one is; and what became of a call with one.

An outcome is `clear` if the library itself raised `ValueError` or `TypeError` and named the argument or
the callable; `said` if a NaN that went in came out; `same` if the value meant the same and gave a result;
all else is a fault: an error of somebody else's, a hang, or an answer.
"""

import contextlib
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
SIGNED = {"axis", "t0", "t1", "c", "lower", "upper", "lo", "hi", "label", "ours", "bound", "expected",
          "residual", "y", "s", "k", "start", "slope"}  # fmt: skip


class Object:
    """Something that is nothing to anybody."""

    def __repr__(self):
        return "Object()"


def bad_values(name, good):
    """What to try in place of `good`, by a short name."""
    tried = {"text": "a", "object": Object(), "none": None}
    if isinstance(good, (bool, np.bool_)):
        return tried | {"number": 2.5}
    if isinstance(good, str):
        return {"number": 3, "object": Object(), "none": None, "nonsense": "no such thing"}
    if isinstance(good, int):
        return tried | {"fraction": 1.5, "nan": np.nan, "negative": -7, "vector": np.ones(3)}
    if isinstance(good, float):
        more = {} if name in SIGNED else {"negative": -1.0}
        return (
            tried | more | {"complex": 1j, "nan": np.nan, "inf": np.inf, "matrix": np.ones((2, 2))}
        )
    if _is_key(good):
        return tried | {"number": 0, "fraction": 1.5}
    if isinstance(good, (jax.Array, np.ndarray)):
        return tried | _bad_arrays(good)
    if isinstance(good, (tuple, list)) and all(isinstance(g, (int, float)) for g in good):
        return tried | {
            "negative": type(good)(-7 for _ in good),
            "nan": type(good)(np.nan for _ in good),
        }
    if isinstance(good, eqx.Module) or hasattr(good, "__dataclass_fields__"):
        return tried | {"class": type(good), "number": 3}
    return tried | {"number": 3}


def _bad_arrays(good):
    found = {"extra axis": good[None], "class": np.ndarray, "words": np.full(good.shape, "a")}
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
    names = [name, *who.split(".")]
    return ("clear" if any(n.lower() in str(error).lower() for n in names) else "unnamed"), text


def _nan(value):
    leaves = [a for a in jax.tree.leaves(value) if isinstance(a, (float, np.ndarray, jax.Array))]
    leaves = [np.asarray(a) for a in leaves if not _is_key(a)]
    return any(a.dtype.kind == "f" and bool(np.isnan(a).any()) for a in leaves)
