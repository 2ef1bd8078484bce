"""What a verification costs in units of one backprop, at two widths; and its memory in depth."""

import equinox as eqx
import jax
from digits import digits
from harness import header, row, timed

import hjcontrol as hj


def main() -> None:
    header("verify(backprop + pairing, 2 probes) over one backprop; 1797 digits, depth 8")
    gradient = eqx.filter_jit(lambda p, w: jax.grad(p.objective)(w))
    for width in (16, 256):
        problem = digits(width=width)
        weights = problem.init(jax.random.key(0))
        one, *_ = timed(lambda p=problem, w=weights: gradient(p, w), 11)

        def verify(problem=problem, weights=weights):
            return hj.verify(problem, weights, routes=("backprop", "pairing"), probes=2)

        whole, least, most = timed(lambda f=verify: f().stationarity, 11)
        certificate = verify()
        row(
            width=width,
            backprop_seconds=one,
            verify_seconds=whole,
            least=least,
            most=most,
            ratio=whole / one,
            **certificate.agreement,
            verdict=certificate.verdict,
        )
    header("peak memory of the compiled backprop and its costates, width 16")
    for depth in (8, 64, 512):
        problem = digits(depth=depth)
        weights = problem.init(jax.random.key(0))
        compiled = eqx.filter_jit(hj.control.backpropagate).lower(problem, weights).compile()
        memory = compiled.compiled.memory_analysis()
        row(depth=depth, temporary_mib=memory.temp_size_in_bytes / 2**20)


if __name__ == "__main__":
    main()
