"""What a person reads of an object: values in its repr, words for every way in which a solve can end."""

import pathlib
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol._ground import shown
from hjcontrol._ground.results import GOOD, RESULTS, name_of
from tests.faults.good_calls import calls

CLASSES = [name for name in calls() if name.rsplit(".")[-1][0].isupper()]
NAMES = list(RESULTS._name_to_item)
HELP = pathlib.Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def small(text):
    lines = text.splitlines()
    return len(lines) < 15 and max(map(len, lines)) < 100


@pytest.fixture
def scalars_only(monkeypatch):
    """Reading anything but a scalar is an error, which a repr would show as the value's type."""

    def asarray(value):
        assert value.shape == ()
        return np.asarray(value)

    monkeypatch.setattr(
        shown, "np", types.SimpleNamespace(**(vars(np) | {"asarray": asarray})), raising=True
    )


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_module_shows_its_values_and_does_not_raise_in_a_trace(name, scalars_only):
    function, arguments = calls()[name]()
    made = function(**arguments)
    if not isinstance(made, eqx.Module):
        return
    assert isinstance(made, shown.Shown), f"{name}: derive it from `_ground.shown.Shown`"
    text = repr(made)
    assert small(text), text
    assert "weak_" not in text
    assert "<ArrayImpl>" not in text
    seen = []
    eqx.filter_eval_shape(lambda it: seen.append(repr(it)), made)
    assert small(seen[0]), seen[0]
    held = [a for a in jax.tree.leaves(made) if eqx.is_array(a)]
    assert not held or "traced" in seen[0] or "..." in seen[0], seen[0]


def test_a_scalar_is_its_value_a_tracer_says_so_and_a_stack_has_its_shape():
    newton = hj.solvers.Newton
    assert "tol=1e-10, " in repr(newton(tol=1e-10))
    seen = []
    jax.jit(lambda t: seen.append(repr(newton(tol=t))))(1.0)
    assert "tol=traced float64[]" in seen[0]
    assert "tol=float64[3]" in repr(jax.vmap(lambda t: newton(tol=t))(jnp.ones(3)))


def test_a_repr_that_raises_costs_nothing():
    class Broken:
        def __repr__(self):
            raise RuntimeError("no words")

    assert shown.line_of(Broken()) == "<Broken>"
    assert shown.line_of(hj.networks.Dense.__new__(hj.networks.Dense)) == "Dense()"


@pytest.mark.parametrize("name", NAMES)
def test_every_result_has_a_name_a_remedy_and_a_row_in_the_docs(name):
    result = getattr(hj.RESULTS, name)
    assert name_of(result) == name
    message = hj.RESULTS[result]
    assert message.count(".") >= (1 if name in GOOD else 2), "say what happened, and what to do"
    assert f"| `{name}` | {message} |" in HELP.read_text()


def test_results_read_as_words_traced_and_in_a_batch():
    assert "successful" in str(hj.RESULTS.successful)
    seen = []
    jax.jit(lambda r: seen.append(name_of(r)))(hj.RESULTS.successful)
    assert seen == ["traced"]
    both = jax.vmap(lambda x: RESULTS.where(x > 0, RESULTS.agreed, RESULTS.lonely))(jnp.arange(2))
    assert name_of(both) == "agreed, lonely"


@pytest.mark.parametrize("old", ["GRID_RESULTS", "SEARCH"])
def test_an_old_enumeration_warns_and_is_the_one_that_is_left(old):
    with pytest.warns(DeprecationWarning, match="RESULTS"):
        assert getattr(hj.hamilton_jacobi, old) is RESULTS
