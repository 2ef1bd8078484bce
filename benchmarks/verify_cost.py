"""What a verification costs in units of one backprop: two widths, depth 256, a recurrence; its memory.

`python verify_cost.py [widths] [deep] [memory]`
"""

import sys

import equinox as eqx
import jax
import numpy as np
from digits import digits
from harness import header, row, timed

import hjcontrol as hj
from hjcontrol.networks import GRU, LSTM, Tied, readout
from hjcontrol.networks.recurrent import Output
from hjcontrol.verification.chain import chain_program

ROUTES = ("backprop", "pairing")
gradient = eqx.filter_jit(lambda p, w: jax.grad(p.objective)(w))


def recurrence(steps: int, cell: type = GRU, width: int = 16) -> hj.ControlProblem:
    """A tied cell that reads `steps` random inputs; 200 samples."""
    rng = np.random.default_rng(0)
    shape, after = ((2, width), [Output()]) if cell is LSTM else ((width,), [])
    return hj.ControlProblem(
        [Tied(cell(8, width), steps), *after, readout(width, 10)],
        np.zeros((200, *shape)),
        rng.integers(0, 10, 200),
        terminal=hj.control.softmax_cross_entropy,
        forcing=rng.standard_normal((200, steps, 8)),
    )


def cost(problem: hj.ControlProblem, **about: object) -> None:
    """One row: seconds of a backprop and of a verification, their ratio, and what it found."""
    weights = problem.init(jax.random.key(0))
    one, *_ = timed(lambda: gradient(problem, weights), 11)
    verify = lambda: hj.verify(problem, weights, routes=ROUTES)
    whole, least, most = timed(lambda: verify().stationarity, 11)
    certificate = verify()
    row(
        **about,
        backprop_seconds=one,
        verify_seconds=whole,
        least=least,
        most=most,
        ratio=whole / one,
        **certificate.agreement,
        verdict=certificate.verdict,
    )


def memory(problem: hj.ControlProblem, **about: object) -> None:
    """One row: temporary memory of the compiled backprop with its costates, and of a verification."""
    weights = problem.init(jax.random.key(0))
    back = eqx.filter_jit(hj.control.backpropagate).lower(problem, weights).compile()
    call = chain_program(problem, weights)
    whole = call.program.lowered(call.leaves).compile()
    mib = lambda c: c.memory_analysis().temp_size_in_bytes / 2**20
    row(**about, backprop_mib=mib(back.compiled), verify_mib=mib(whole))


def main(parts: list[str]) -> None:
    parts = parts or ["widths", "deep", "memory"]
    if "widths" in parts:
        header("verify(backprop + pairing) over one backprop; 1797 digits, depth 8")
        for width in (16, 256):
            cost(digits(width=width), width=width)
    if "deep" in parts:
        header("the same at depth 256; residual stages, width 16, and recurrences, 200 samples")
        cost(digits(samples=200, depth=256), network="residual", depth=256)
        cost(recurrence(256), network="gru, tied", depth=256)
        cost(recurrence(256, LSTM), network="lstm, tied", depth=256)
    if "memory" in parts:
        header("temporary memory, width 16, 200 samples")
        for depth in (8, 64, 512):
            memory(digits(samples=200, depth=depth), network="residual", depth=depth)
            memory(recurrence(depth), network="gru, tied", depth=depth)


if __name__ == "__main__":
    main(sys.argv[1:])
