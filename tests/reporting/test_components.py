"""Principal components: distances kept where two dimensions hold all, axes shared by all depths."""

import jax.numpy as jnp
import numpy as np

from hjcontrol.control import Trajectory
from hjcontrol.reporting.components import components


def trajectory(*states):
    states = [jnp.asarray(s) for s in states]
    return Trajectory(tuple(s[:, None] for s in states[:-1]), states[-1])


def test_a_plane_in_many_dimensions_is_kept_whole():
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.normal(size=(7, 2)))[0]
    flat = [rng.normal(size=(20, 2)) * [3, 1] for _ in range(4)]
    shown = components(trajectory(*[f @ frame.T for f in flat]))
    assert shown is not None
    assert shown.depths == (0, 1, 2, 3)
    assert abs(sum(shown.explained) - 1) < 1e-12
    gap = lambda p: np.linalg.norm(p[:, None] - p[None], axis=-1)
    for a, b in zip(np.stack(shown.points), np.stack(flat), strict=True):
        np.testing.assert_allclose(gap(a), gap(b), atol=1e-12)


def test_only_the_commonest_width_and_both_ends():
    rng = np.random.default_rng(1)
    states = [rng.normal(size=(5, w)) for w in (9, *[4] * 12, 2)]
    shown = components(trajectory(*states), panels=5)
    assert shown is not None
    assert len(shown.depths) == 5
    assert (shown.depths[0], shown.depths[-1]) == (1, 12)


def test_nothing_to_show():
    rng = np.random.default_rng(2)
    assert components(trajectory(*[rng.normal(size=(5, w)) for w in (2, 3, 4)])) is None
    assert components(trajectory(*[rng.normal(size=(5, 1))] * 3)) is None
    assert components(trajectory(*[np.full((5, 2), np.nan)] * 3)) is None


def test_states_that_never_move():
    shown = components(trajectory(*[np.ones((5, 2))] * 3))
    assert shown is not None
    assert shown.explained == (0.0, 0.0)
