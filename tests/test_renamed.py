"""Old names of arguments and fields warn, and give what the new ones give."""

import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj
from hjcontrol import layers, solvers
from hjcontrol._ground.renamed import renamed

Z = jnp.array([0.3, -1.0, 2.0, 0.5])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (lambda: solvers.MSA(inner_steps=4), lambda: solvers.MSA(steps=4)),
        (lambda: solvers.Direct(plugin="fatrop"), lambda: solvers.Direct(backend="fatrop")),
        (
            lambda: layers.certify(layers.Softmax(0.5).program(Z), Z, tolerance=1e-3).verdict,
            lambda: layers.certify(layers.Softmax(0.5).program(Z), Z, tol=1e-3).verdict,
        ),
        (
            lambda: hj.verify(lambda x: jnp.sum(x**2), Z, tolerance=1e-3).verdict,
            lambda: hj.verify(lambda x: jnp.sum(x**2), Z, tol=1e-3).verdict,
        ),
    ],
    ids=["steps", "backend", "certify", "verify"],
)
def test_an_old_argument_warns_and_is_the_new_one(old, new):
    with pytest.warns(DeprecationWarning, match="is now .* goes with the next release"):
        given = old()
    assert given == new()


def test_an_old_field_answers():
    msa = solvers.MSA(steps=4)
    with pytest.warns(DeprecationWarning, match="MSA: `inner_steps` is now `steps`"):
        assert msa.inner_steps == 4
    assert "inner_steps" not in repr(msa)
    assert jax.tree.structure(msa) == jax.tree.structure(solvers.MSA(steps=4))


def test_an_argument_under_both_names_is_refused():
    with pytest.raises(TypeError, match=r"`tol` is given twice, also as `tolerance`"):
        layers.certify(layers.Softmax(0.5).program(Z), Z, tol=1e-3, tolerance=1e-3)


def test_the_new_name_does_not_warn(recwarn):
    assert renamed(a="b")(lambda *, b: b)(b=1) == 1
    assert not recwarn.list
