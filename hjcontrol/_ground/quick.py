"""Programs that run once: on a CPU, where the arrays are small, compiled without LLVM's optimisation.

Compiling takes a quarter of the time then, and what is compiled runs at half the speed: that costs
milliseconds where it saves seconds. A program that runs many times, or on many numbers, is left alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from hjcontrol._ground.concrete import traced

NUMBERS = 2**20  # most numbers among the arguments
OPTIONS: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
# XLA's fusion emitters compile equal kernels once; where all differ, a kernel takes them three times as
# long. Later versions of JAX do not know the switch.
DIFFERENT: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
DIFFERENT = DIFFERENT if jax.__version_info__ < (0, 11) else {}
OPTIONS |= DIFFERENT


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`equinox.filter_jit` of a function whose program runs once."""
    jitted: Callable[..., Any] = eqx.filter_jit  # its stubs know no `compiler_options`
    thorough, hasty = jitted(function), jitted(function, compiler_options=OPTIONS)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return (hasty if small((args, kwargs)) else thorough)(*args, **kwargs)

    return run


def small(arguments: Any) -> bool:
    """Whether a program of these arguments is compiled in haste."""
    leaves = [a for a in jax.tree.leaves(arguments) if eqx.is_array(a)]
    if traced(jax.lax.full((), 0)) or any(map(traced, leaves)):  # part of another program
        return False
    return jax.default_backend() == "cpu" and sum(a.size for a in leaves) <= NUMBERS


def different_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` of a function whose program holds no kernel twice."""
    return jax.jit(function, compiler_options=DIFFERENT if jax.default_backend() == "cpu" else None)
