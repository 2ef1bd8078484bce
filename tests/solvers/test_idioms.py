"""A hundred idioms of user dynamics, replayed: values and Jacobians; the status of every primitive."""

import casadi as ca
import jax
import jax.extend.core.primitives as of_jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol._ground.jaxprs import CALL_PRIMITIVES
from hjcontrol.solvers.casadi_refusals import IN_PART, REFUSED
from hjcontrol.solvers.casadi_replay import SUPPORTED, UnsupportedPrimitiveError, casadi_function
from hjcontrol.solvers.selection import select
from tests.solvers import idioms

POINTS = np.random.default_rng(0).uniform(-2, 2, (3, 6))


@pytest.fixture(scope="module")
def by_jax():
    """Values and Jacobians of all idioms at all points, in one program."""

    def one(f, x):
        return f(x), jax.jacfwd(f)(x)

    every = lambda x: {n: one(f, x) for n, f in idioms.IDIOMS.items() if n not in idioms.REFUSED}
    program = jax.jit(every).lower(jnp.zeros(6))
    return list(map(program.compile({"xla_backend_optimization_level": 0}), jnp.asarray(POINTS)))


@pytest.mark.parametrize("name", sorted(set(idioms.IDIOMS) - set(idioms.REFUSED)))
def test_an_idiom_is_replayed(name, by_jax):
    f = casadi_function(idioms.IDIOMS[name], jnp.zeros(6))
    x = ca.SX.sym("x", 6)
    twin = ca.Function("twin", [x], [f(x), ca.jacobian(f(x), x)])
    for point, wanted in zip(POINTS, by_jax, strict=True):
        for a, b in zip(wanted[name], twin(point), strict=True):
            b = np.array(b)
            a = np.asarray(a, float).reshape(b.shape)
            assert np.all(np.abs(a - b) <= 1e-13 * np.maximum(1.0, np.abs(a)))


@pytest.mark.parametrize("name", sorted(idioms.REFUSED))
def test_what_is_refused_is_refused_by_name(name):
    primitive = idioms.REFUSED[name]
    with pytest.raises(UnsupportedPrimitiveError, match=rf"`{primitive}`.*here: "):
        casadi_function(idioms.IDIOMS[name], jnp.zeros(6))


def test_most_idioms_are_replayed():
    assert len(idioms.IDIOMS) >= 100
    assert len(idioms.REFUSED) <= 4


def test_eigenvectors_are_refused_with_the_reason():
    vectors = lambda x: jnp.linalg.eigh(jnp.outer(x[:2], x[:2]) + jnp.eye(2))[1].ravel()
    with pytest.raises(UnsupportedPrimitiveError, match="nothing fixes their sign"):
        casadi_function(vectors, jnp.zeros(6))


def test_every_primitive_of_the_installed_jax_has_a_status():
    """A new JAX shows here at once: replayed, opened, refused with a reason, or of no input."""
    names = {getattr(of_jax, n).name for n in dir(of_jax) if n.endswith("_p")}
    no_input = {"iota"}
    known = SUPPORTED | CALL_PRIMITIVES | set(REFUSED) | no_input | {"call"}
    assert sorted(names - known) == []
    assert sorted(set(REFUSED) & SUPPORTED) == []
    assert set(IN_PART) <= SUPPORTED


def test_auto_asks_whether_the_program_transcribes():
    """A set that Newton does not treat: Direct, unless CasADi cannot express the stages."""
    x = jnp.ones((3, 2))
    ball = hj.control.L2Ball(1.0)
    start = jnp.zeros(2)
    state = lambda stage: hj.ControlProblem(
        [(stage, start)] * 2, x, terminal=lambda x: jnp.sum(x**2), control_set=ball
    )
    assert select(state(lambda x, u: jnp.stack([x[1], u[0] + u[1]]))).name == "direct"
    other = select(state(lambda x, u: jnp.abs(jnp.fft.fft(x)) + u))
    assert other.name == "gradient"
    assert "`fft`" in other.others["direct"]
