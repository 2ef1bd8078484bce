"""Mutable arrays in a program: `jax.new_ref`, what is written into one and what is read from it.

    new_ref, get, swap, addupdate, freeze      an equation that meets a ref may read it and write it

JAX's own reverse mode loses what is written into some of them (one made in the body of a scan, one met
under `jax.checkpoint`), so the gradient of a program with refs is compared with its values.

A ref that a function closes over outlives a run: every run of the witness begins with the values that
the user left in it, and ends with them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

from hjcontrol._ground.jaxprs import equations


def is_ref(value: Any) -> bool:
    """Whether a value, a variable or what stands for one is a mutable array."""
    return isinstance(getattr(value, "aval", value), jax.ref.AbstractRef)


def holds_refs(jaxpr: Jaxpr) -> bool:
    """Whether a program makes mutable arrays of floating numbers."""
    made = (v for eqn in equations(jaxpr) for v in eqn.outvars)
    return any(is_ref(v) and jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in made)


def kept_still(ins: Sequence[Any]) -> list[Any]:
    """Inputs of an equation that nothing differentiated enters. What a `stop_gradient` gave has a
    derivative while it is measured, and a ref that the function closes over takes none."""
    if not any(type(a) is jax.Ref for a in ins):
        return list(ins)
    return [a if is_ref(a) or not hasattr(a, "dtype") else jax.lax.stop_gradient(a) for a in ins]


def leaving_as_found(program: Callable, consts: Sequence[Any]) -> Callable:
    """`program`, which leaves the refs among `consts` as it found them."""
    refs = [c for c in consts if is_ref(c)]
    if not refs:
        return program

    def run(*args: Any) -> Any:
        held = [ref[...] for ref in refs]
        try:
            return program(*args)
        finally:
            for ref, value in zip(refs, held, strict=True):
                ref[...] = value

    return run
