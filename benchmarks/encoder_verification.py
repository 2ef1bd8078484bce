"""What it costs to verify a real encoder of 10.6 million trained weights, in units of one backprop.

Beside it the usual check, `jax.test_util.check_grads` of the whole objective along one direction, on the
same problem, right and with a wrong rule in block 3 (the exact GELU differentiated as its tanh
approximation): does it notice, and does it say where? Needs the packages of the extra `encoder`.
"""

import time
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from harness import header, row, timed
from jax.test_util import check_grads

import hjcontrol as hj
from hjcontrol.networks import gelu, sentence_encoder
from hjcontrol.verification.chain import chain_program

TEXT = "a ball rolls down the hill until friction brings it to rest in the wet grass"
ROUTES = ("backprop", "pairing")


def sentences(count: int) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.permutation(TEXT.split())[: draw.integers(5, 13)]) for _ in range(count)]


@jax.custom_jvp
def mixed(a):
    return gelu(a)


@mixed.defjvp
def _(primals, tangents):
    return gelu(*primals), jax.jvp(lambda a: jax.nn.gelu(a), primals, tangents)[1]


def stated(encoder, files, count, length, wrong=False):
    tokens = files.tokenise(sentences(count), length)
    target = np.random.default_rng(1).standard_normal((count, encoder.front.places.shape[1]))
    stages = encoder.stages
    if wrong:
        units = hj.networks.Pointwise(mixed)
        stages[3] = eqx.tree_at(lambda b: b.feed_forward.units, stages[3], units)
    return hj.ControlProblem(
        stages,
        encoder.embed(tokens.ids),
        jnp.asarray(
            target / np.linalg.norm(target, axis=1, keepdims=True), encoder.block.norm.delta.dtype
        ),
        terminal=hj.control.least_squares,
        context=tokens.seen,
    )


def cost(encoder, files, count: int, length: int) -> None:
    problem, weights = stated(encoder, files, count, length), encoder.weights
    gradient = eqx.filter_jit(lambda p, w: jax.grad(p.objective)(w))
    one, *_ = timed(lambda: gradient(problem, weights))
    clock = time.perf_counter()
    certificate = hj.verify(problem, weights, routes=ROUTES)
    first = time.perf_counter() - clock
    whole, least, most = timed(lambda: hj.verify(problem, weights, routes=ROUTES).stationarity)
    call = chain_program(problem, weights)
    programs = (
        gradient.lower(problem, weights).compile().compiled,
        call.program.lowered(call.leaves).compile(),
    )
    memory = [p.memory_analysis().temp_size_in_bytes / 2**20 for p in programs]
    row(
        dtype=str(problem.dtype),
        sentences=count,
        length=length,
        backprop_seconds=one,
        verify_seconds=whole,
        least=least,
        most=most,
        ratio=whole / one,
        first_call_seconds=first,
        backprop_mib=memory[0],
        verify_mib=memory[1],
        **certificate.agreement,
        verdict=certificate.verdict,
    )


def peer(encoder, files, wrong: bool) -> None:
    problem = stated(encoder, files, 8, 16, wrong)
    weights = problem.chain.stack(_by_stage(encoder))
    objective = jax.jit(lambda w: problem.objective(w))

    def usual() -> str:
        try:
            check_grads(objective, (weights,), order=1, modes=["rev"])
        except AssertionError:
            return "failed"
        return "passed"

    said, certificate = usual(), hj.verify(problem, weights, routes=ROUTES)
    by_check, *_ = timed(lambda: usual() == said, 3)
    by_verify, *_ = timed(lambda: hj.verify(problem, weights, routes=ROUTES).stationarity, 3)
    row(
        rule="wrong in block 3" if wrong else "right",
        check_grads=said,
        check_grads_seconds=by_check,
        verify=certificate.verdict,
        where=", ".join(str(f) for f in certificate.refuted),
        verify_seconds=by_verify,
        **certificate.agreement,
    )


def _by_stage(encoder):
    blocks = [
        jax.tree.map(lambda a, k=k: a[k], encoder.weights[0]) for k in range(encoder.num_blocks)
    ]
    return [*blocks, (), ()]


def main() -> None:
    warnings.filterwarnings("ignore", message="An exact certificate was asked for in float32")
    files = hj.data.read_encoder()
    header("verify(backprop + pairing) over one backprop; all-MiniLM-L6-v2")
    for dtype in (jnp.float32, jnp.float64):
        encoder = sentence_encoder(files.tensors, files.config, dtype)
        for count, length in ((8, 16), (32, 16), (8, 64)):
            cost(encoder, files, count, length)
    header("the usual check beside it; 8 sentences of 16")
    for wrong in (False, True):
        peer(encoder, files, wrong)


if __name__ == "__main__":
    main()
