"""Programs that run once: the same numbers, however they are compiled, and inside any other program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol._ground import quick

X = np.linspace(-1.0, 1.0, 64).reshape(8, 8)
WANTED = np.tanh(X) @ X

matrix = quick.quick_jit(lambda x: jnp.tanh(x) @ x)
here = lambda: matrix(jnp.asarray(X))


@pytest.mark.parametrize("most", [0, 2**20], ids=["optimised", "not optimised"])
@pytest.mark.parametrize(
    "surrounded",
    [
        here,
        jax.jit(here),
        jax.jit(lambda: matrix(X)),
        lambda: jax.jit(matrix)(X),
        lambda: jax.vmap(matrix)(X[None])[0],
        lambda: jax.vmap(lambda a: here() + a)(jnp.zeros(2))[0],
        lambda: jax.lax.scan(lambda c, _: (c + here(), None), jnp.zeros((8, 8)), None, 1)[0],
        lambda: jax.jvp(matrix, (X,), (X,))[0],
    ],
)
def test_the_numbers_are_numpys_wherever_it_stands(surrounded, most, monkeypatch):
    monkeypatch.setattr(quick, "NUMBERS", most)
    np.testing.assert_allclose(surrounded(), WANTED, rtol=1e-13, atol=1e-15)


def test_few_numbers_are_compiled_in_haste_and_many_are_not():
    few, many, seen = jnp.ones(4), jnp.ones(quick.NUMBERS + 1), []
    assert quick.small((few, 1.0))
    assert not quick.small((few, many))
    jax.jit(lambda x: seen.append(quick.small((few,))) or x)(few)  # part of another program
    assert seen == [False]
