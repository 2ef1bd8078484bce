"""Root finders of optimistix: the user's rule inside is named, and a method that compares is no fault."""

import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj

optimistix = pytest.importorskip("optimistix")


def cubic(factor):
    @jax.custom_jvp
    def cube(x):
        return x**3

    cube.defjvp(lambda x, v: (x[0] ** 3, factor * 3 * x[0] ** 2 * v[0]))
    return cube


def root(cube, solver, **options):
    def fn(a):
        left = lambda y, a: cube(y) + y - a
        found = optimistix.root_find(
            left, solver, jnp.asarray(0.5), a, options=options, throw=False
        )
        return found.value**2

    return fn


@pytest.mark.parametrize("method", ["Newton", "Chord"])
def test_the_user_s_wrong_rule_is_named(method):
    solver = getattr(optimistix, method)(1e-10, 1e-10)
    found = hj.verify(root(cubic(1.1), solver), jnp.asarray(1.3))
    assert found.verdict == "refuted"
    assert found.worst.rule == "cube", str(found)
    assert found.worst.file == __file__
    assert 0.08 < found.worst.gap < 0.11
    assert "inside fn_wrapper at test_root_finders.py" in found.worst.reason
    right = hj.verify(root(cubic(1.0), solver), jnp.asarray(1.3))
    assert right.verdict in ("consistent", "untested"), str(right)
    assert "refuted" not in str(right)


def test_a_rule_that_is_off_by_one_percent_in_float32_is_named():
    """The library's place is not refuted: its loop has no limit, and keeps a gap below one percent."""
    solver, a = optimistix.Newton(1e-4, 1e-4), jnp.asarray(1.3, jnp.float32)
    right, wrong = (hj.verify(root(cubic(c), solver), a) for c in (1.0, 1.01))
    assert (wrong.verdict, wrong.worst.rule) == ("refuted", "cube"), str(wrong)
    assert wrong.worst.file == __file__
    assert 0.009 < wrong.worst.gap < 0.011
    assert right.verdict == "untested"
    assert "refuted" not in str(right)


def test_a_rule_that_is_right_is_not_blamed_for_another():
    """The library's place is refuted, and the used-up rule is right: the library's line stays."""
    wrong, cube = cubic(1.1), cubic(1.0)
    solver = optimistix.Newton(1e-10, 1e-10)
    found = hj.verify(root(lambda y: wrong(y) + 0 * cube(y), solver), jnp.asarray(1.3))
    assert found.worst.rule == "cube"
    assert found.worst.line == cubic.__code__.co_firstlineno + 1
    assert found.worst.gap > 0.08


@pytest.mark.parametrize("ruled", [True, False])
def test_a_bisection_has_no_derivative_of_its_own(ruled):
    solver = optimistix.Bisection(1e-12, 1e-12)
    cube = cubic(1.0) if ruled else lambda x: x**3
    found = hj.verify(root(cube, solver, lower=-3.0, upper=3.0), jnp.asarray(1.3))
    assert found.verdict == "consistent", str(found)
    assert "by differences of the values" in str(found)
    wrong = hj.verify(root(cubic(1.1), solver, lower=-3.0, upper=3.0), jnp.asarray(1.3))
    assert wrong.verdict == "refuted", str(wrong)
