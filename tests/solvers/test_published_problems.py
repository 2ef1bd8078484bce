"""Published control problems: the printed value to what the mesh costs, and CasADi's by hand to 1e-8."""

import jax
import numpy as np
import pytest

import hjcontrol as hj
from tests.oracles.published_problems import PROBLEMS, by_hand, stated


@pytest.mark.parametrize("p", PROBLEMS, ids=[p.name for p in PROBLEMS])
def test_the_published_value_and_the_program_by_hand(p):
    """The two programs share the formulas of the dynamics, and nothing else."""
    problem, start = stated(p)
    found = hj.solve(problem, "direct", init=start, key=jax.random.key(0))
    assert found.result == hj.RESULTS.successful, found.stats
    np.testing.assert_allclose(found.objective, p.value, rtol=p.mesh)
    np.testing.assert_allclose(found.objective, by_hand(p)[0], atol=1e-8)


def test_there_are_sixteen_and_more():
    assert len({p.name for p in PROBLEMS}) >= 16
