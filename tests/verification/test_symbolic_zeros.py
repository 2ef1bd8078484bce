"""Rules that ask what is perturbed: the branch that is judged is the one that `jax.grad` takes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import SymbolicZero

import hjcontrol as hj

x = np.linspace(0.3, 1.7, 6)
w = x[::-1].copy()
off = pytest.mark.parametrize("factor", [1.0, 1.01])
expected = lambda factor: "exact" if factor == 1 else "refuted"


def product_and_sum(symbolic=1.0, arrays=1.0, unperturbed=1.0):
    """`(x w, x + w)`; factors of the image where some costate is a symbolic zero, where none is, and
    where `w` is not perturbed."""

    @jax.custom_vjp
    def f(x, w):
        return x * w, x + w

    def fwd(x, w):
        return f(x.value, w.value), (x.value, w.value, w.perturbed)

    def bwd(r, p):
        x, w, perturbed = r
        zeros = [isinstance(a, SymbolicZero) for a in p]
        a, b = (jnp.zeros_like(x) if zero else c for c, zero in zip(p, zeros, strict=True))
        c = (symbolic if any(zeros) else arrays) * (1.0 if perturbed else unperturbed)
        return c * (a * w + b), c * (a * x + b)

    f.defvjp(fwd, bwd, symbolic_zeros=True)
    return f


square = lambda a: jnp.sum(a**2)


def scanned(f):
    return lambda x, w: square(jax.lax.scan(lambda c, _: f(c, w), x, length=2)[0])


def chosen(f):
    branch = lambda x, w: jax.lax.cond(x[0] > 0, f, lambda x, w: (x, w), x, w)
    return lambda x, w: square(branch(x, w)[0])


def thrice(f):
    """Equal places: they are measured together."""

    def layers(x, w):
        for _ in range(3):
            x = f(x, w)[0]
        return square(x)

    return layers


ONE_OUTPUT = {
    "plain": lambda f: lambda x, w: square(f(x, w)[0]),
    "jit": lambda f: jax.jit(lambda x, w: square(jax.jit(f)(x, w)[1])),
    "remat": lambda f: lambda x, w: square(jax.checkpoint(f)(x, w)[0]),
    "vmap": lambda f: lambda x, w: square(jax.vmap(f)(x, w)[0]),
    "scan": scanned,
    "cond": chosen,
    "family": thrice,
}
kinds = pytest.mark.parametrize("kind", ONE_OUTPUT)


@off
@kinds
def test_a_costate_that_is_a_symbolic_zero(kind, factor):
    fn = ONE_OUTPUT[kind](product_and_sum(symbolic=factor))
    assert hj.verify(fn, x, w).verdict == expected(factor)


@off
@kinds
def test_an_input_that_is_not_perturbed(kind, factor):
    fn = ONE_OUTPUT[kind](product_and_sum(unperturbed=factor))
    assert hj.verify(fn, x, w, argnums=0).verdict == expected(factor)
    assert hj.verify(fn, x, w).verdict == "exact"


@kinds
def test_a_branch_that_the_program_does_not_take_is_not_judged(kind):
    assert hj.verify(ONE_OUTPUT[kind](product_and_sum(arrays=1.01)), x, w).verdict == "exact"


@off
def test_where_both_results_are_used_no_costate_is_symbolic(factor):
    both = lambda f: lambda x, w: sum(map(square, f(x, w)))
    assert hj.verify(both(product_and_sum(arrays=factor)), x, w).verdict == expected(factor)
    assert hj.verify(both(product_and_sum(symbolic=1.01)), x, w).verdict == "exact"


@off
@pytest.mark.parametrize("options", [{"costate": "random"}, {"order": 2}], ids=str)
def test_symbolic_zeros_by_other_ways(options, factor):
    fn = ONE_OUTPUT["plain"](product_and_sum(symbolic=factor))
    assert hj.verify(fn, x, w, **options).verdict == expected(factor)


@off
def test_symbolic_zeros_below_float32(factor):
    """The trial alone takes the same branch, with arithmetic of eight bits."""
    fn = ONE_OUTPUT["plain"](product_and_sum(symbolic=1 + 8 * (factor - 1)))
    low = [jnp.asarray(a, jnp.bfloat16) for a in (x, w)]
    assert hj.verify(fn, *low).verdict == expected(factor)


@off
def test_symbolic_zeros_of_a_custom_jvp(factor):
    @jax.custom_jvp
    def product(x, w):
        return x * w

    def jvp(at, v):
        (x, w), (dx, dw) = at, v
        if isinstance(dw, SymbolicZero):
            return x * w, factor * dx * w
        return x * w, dx * w + x * dw

    product.defjvp(jvp, symbolic_zeros=True)
    fn = lambda x, w: square(product(x, w))
    assert hj.verify(fn, x, w, argnums=0).verdict == expected(factor)
    assert hj.verify(fn, x, w).verdict == "exact"


@off
def test_a_rule_of_equinox_is_given_none_for_a_result_that_is_not_used(factor):
    @eqx.filter_custom_vjp
    def both(x):
        return jnp.sin(x), 3 * x

    both.def_fwd(lambda perturbed, x: ((jnp.sin(x), 3 * x), None))

    @both.def_bwd
    def _(residuals, p, perturbed, x):
        first, second = p
        return factor * first * jnp.cos(x) if second is None else first * jnp.cos(x) + 3 * second

    assert hj.verify(lambda x: square(both(x)[0]), x).verdict == expected(factor)
    assert hj.verify(lambda x: sum(map(square, both(x))), x).verdict == "exact"
