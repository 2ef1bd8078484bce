r"""A new layer is one class and one line in the registry; engines, routes, certificates follow."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from hjcontrol.deformation.soft_maximum import temperature
from hjcontrol.layers import argmax, compare_gradients, registry
from hjcontrol.layers.box import AbstractBoxLayer
from hjcontrol.layers.engines import ENGINES, KINDS, Kind, lacks
from hjcontrol.layers.regulariser import AbstractRegulariser, BinaryEntropy
from tests.agreement import assert_agree
from tests.layers.test_laws import LAWS, logits, observe

# ------------------------------------------------------------------- what a contributor writes


class Valve(AbstractBoxLayer):
    """Binary entropy on [-1/2, 2]: open, shut, or somewhat beyond."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    phi: AbstractRegulariser = eqx.field(
        init=False, default_factory=lambda: BinaryEntropy(-0.5, 2.0)
    )
    kind = "box, entropy"
    domain = "box [-1/2, 2]"
    regulariser = "binary entropy"
    curvature = "smooth; strongly convex dual"


@pytest.fixture
def registered(monkeypatch):
    entry = registry.Entry(Valve, (4,), 0.5, "soft hinge", "soft valve")
    monkeypatch.setitem(registry.REGISTRY, "valve", entry)


# ------------------------------------------------------------------- what follows


@pytest.mark.usefixtures("registered")
def test_one_class_and_one_line_give_every_engine_route_and_certificate():
    (row,) = (row for row in registry.table() if row[0] == "valve")
    assert row[:4] == ("valve", "soft hinge", "soft valve", "box [-1/2, 2]")
    layer, Z = registry.build("valve"), logits("valve")
    seen = jax.device_get(eqx.filter_jit(functools.partial(observe, Valve))(Z, jnp.asarray(0.5)))
    for law in LAWS:
        law(seen, Z)
    for engine in ENGINES:
        assert_agree(
            argmax(layer, Z[0], engine), seen["argmax"][0], 1e-4 if engine == "cvxpy" else 1e-8
        )
    table = compare_gradients(layer, Z)
    assert table.agree, str(table)
    assert table.missing == ()
    assert layer.certify(Z[0]).verdict == "optimal"
    hard = Valve(0.0)
    assert list(np.asarray(hard.face(jnp.array([1.0, 0.0, -1.0, 2.0])).ties)) == [0, 1, 0, 0]
    assert "piecewise linear" in lacks(hard, "newton")


class Stranger(Valve):
    """A layer whose kind of program has no row."""

    kind = "strange"


class Silent(Valve):
    """A layer that names no kind."""

    kind = None


def test_a_new_kind_is_one_row(monkeypatch):
    layer, z = Stranger(0.5), jnp.asarray(logits("softmax")[:2, :4])
    with pytest.raises(ValueError, match=r"Stranger: its kind must be one of .*found 'strange'"):
        argmax(layer, z[0], "newton")
    monkeypatch.setitem(KINDS, "strange", Kind(newton=KINDS["box, entropy"].newton))
    assert_agree(argmax(layer, z[0], "newton"), layer(z[0]), 1e-13)
    table = compare_gradients(layer, z)
    assert table.agree
    assert table.missing == ("implicit",)
    with pytest.raises(ValueError, match="no engine `jaxopt`: its kind of program has none"):
        argmax(layer, z[0], "jaxopt")


def test_a_layer_without_a_kind_has_the_closed_form_and_its_twin():
    layer, z = Silent(0.5), logits("softmax")[0]
    assert [engine for engine in ENGINES if lacks(layer, engine) is None] == ["closed", "cvxpy"]
    assert compare_gradients(layer, z).missing == ("implicit", "unrolled")
