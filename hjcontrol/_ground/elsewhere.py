"""Jobs for a `concurrent.futures.Executor`: other threads or processes, the same digits.

    answers(executor, function, [arguments, ...])  ->  [function(*arguments), ...]

JAX's settings that digits depend on go with a job: a new process has 32-bit floats whatever the caller's
are. What one process sends another is pickled by cloudpickle where that is installed (dask and joblib
bring it), so that functions made inside functions can be sent, as optax makes them; else by pickle.
"""

import contextlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from types import ModuleType
from typing import Any

import jax

from hjcontrol._ground.third_party import installed

SETTINGS = ("enable_x64", "default_matmul_precision", "default_prng_impl", "threefry_partitionable")


def answers(
    executor: Executor, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
) -> list[Any]:
    """`function(*job)` of every job, wherever the executor runs it, under the caller's settings.

    **Raises:** `ValueError` for processes made by `fork`, in which JAX does not answer.
    """
    context = getattr(executor, "_mp_context", None)  # a ProcessPoolExecutor's
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "`executor` makes its processes by `fork`, and a fork of a process that runs JAX can wait "
            'for ever. Make it with mp_context=multiprocessing.get_context("spawn").'
        )
    futures = [executor.submit(Job(function, job)) for job in jobs]
    return [
        pickle.loads(a.data) if isinstance(a, Sent) else a for a in (f.result() for f in futures)
    ]


class Sent:
    """A value as bytes, read where it is needed."""

    def __init__(self, value: Any):
        self.data = _pickler().dumps(value)


class Job:
    """A function with its arguments, called under the settings of the thread that made the job."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]):
        self.settings = {name: getattr(jax.config, f"jax_{name}") for name in SETTINGS}
        self.work: Any = (function, arguments)

    def __getstate__(self) -> dict[str, Any]:
        work = self.work  # a scheduler between the processes pickles what it has read
        return self.__dict__ | {"work": work if isinstance(work, Sent) else Sent(work)}

    def __call__(self) -> Any:
        """The function's value; as bytes, if another process asked for it."""
        with _under(self.settings):  # before arrays are read: 64-bit ones need 64-bit floats
            sent = isinstance(self.work, Sent)
            function, arguments = pickle.loads(self.work.data) if sent else self.work
            value = function(*arguments)
            return Sent(value) if sent else value


@contextlib.contextmanager
def _under(settings: dict[str, Any]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name, value in settings.items():
            stack.enter_context(getattr(jax, name)(value))
        yield


def _pickler() -> ModuleType:
    if not installed("cloudpickle"):
        return pickle
    import cloudpickle

    return cloudpickle
