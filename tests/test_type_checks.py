"""The suite's type checker finds a wrong shape, in the library and in any function that states one."""

import beartype
import jax.numpy as jnp
import jaxtyping
import pytest
from jaxtyping import Array, Float

from hjcontrol.deformation import eps_family
from tests.type_checks import jaxtyped


@jaxtyped(typechecker=beartype.beartype)
def product(A: Float[Array, "m n"], x: Float[Array, "n"]) -> Float[Array, "m"]:
    return A @ x


@jaxtyped(typechecker=beartype.beartype)
def column(x: Float[Array, "n"]) -> Float[Array, "n"]:
    return x[:, None]


def test_right_shapes_pass():
    assert product(jnp.ones((2, 3)), jnp.ones(3)).shape == (2,)


def test_wrong_shapes_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters"):
        product(jnp.ones((2, 3)), jnp.ones(2))
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        column(jnp.ones(2))


def test_the_library_s_functions_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError):
        eps_family.lse.__wrapped__("no array", 1.0)
