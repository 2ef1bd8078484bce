"""Ctrl-C and its kin: taken once, at a moment when what is finished is whole.

    with held() as stop: ...  if stop.asked: write down what there is; raise KeyboardInterrupt
    with interrupted_once(): ...     the first signal raises KeyboardInterrupt, further ones are ignored

SIGINT (Ctrl-C), SIGTERM (a polite end) and SIGHUP (the terminal is gone) are one thing here.
Handlers that somebody else has set stay, and so does everything outside the main thread.
"""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@dataclasses.dataclass
class Stop:
    """Whether an end was asked for."""

    asked: bool = False


@contextlib.contextmanager
def held() -> Iterator[Stop]:
    """Signals that would raise `KeyboardInterrupt` are noted instead; the body looks, and raises."""
    stop = Stop()

    def note(signum: int, frame: Any) -> None:
        del signum, frame
        stop.asked = True

    ours = (signal.default_int_handler, _once)
    with _handled([s for s in SIGNALS if signal.getsignal(s) in ours], note):
        yield stop


@contextlib.contextmanager
def interrupted_once() -> Iterator[None]:
    """The first of the signals raises `KeyboardInterrupt`; those that follow are ignored, so that what
    the first one set in motion (writing, tidying, one line for the person) comes to its end."""
    with _handled(SIGNALS, _once):
        yield


def _once(signum: int, frame: Any) -> None:
    del signum, frame
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(signals: Any, handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, handler) for s in signals}
    try:
        yield
    finally:
        for s, old in before.items():
            signal.signal(s, signal.SIG_DFL if old is None else old)
