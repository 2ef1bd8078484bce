"""The key of what can be seen from an object: equal for equal state, another once anything is changed."""

import copy
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.by_shape import looked_at_once, once_per_shape
from hjcontrol._ground.visible import visible
from tests.verification.cases import sine

RIGHT = sine(1.0)
table = {"rules": [RIGHT]}


def test_what_differs_has_another_key():
    """Values that Python holds to be equal, or that are spread over containers in another way."""
    nan = float("nan")
    values = (
        1,
        1.0,
        True,
        "1",
        0.0,
        -0.0,
        1j,
        nan,
        None,
        [],
        (),
        {},
        [1],
        [[1]],
        (1, 1),
        {1: 2},
        {2: 1},
    )
    arrays = (
        np.ones(2),
        np.ones(2, np.float32),
        np.ones((1, 2)),
        np.array([1.0, -1.0]),
        np.float64(1),
    )
    keys = [visible(value) for value in (*values, *arrays, jnp.ones(2), jnp.ones(2))]
    assert len(set(keys)) == len(keys)
    for value in (*values, *arrays):
        assert visible(copy.deepcopy(value)) == visible(value)


def test_a_structure_that_holds_itself():
    held = [1]
    held.append(held)
    key = visible(held)
    assert key == visible(held)
    held[0] = 2
    assert key != visible(held)


def test_a_key_costs_little():
    net = eqx.nn.MLP(4, 2, 8, 3, key=jax.random.key(0))
    loss = lambda x: jnp.sum(RIGHT(net(x))) + jnp.sum(table["rules"][0](x))
    visible(loss)
    start = time.perf_counter()
    for _ in range(20):
        visible(loss)
    assert (time.perf_counter() - start) / 20 < 0.02


def test_what_is_known_of_a_shape_is_known_of_the_code_as_it_is_now():
    width, asked = [2], []
    found = once_per_shape(lambda tree: (asked.append(1), tree["draw"]())[1])
    tree = {"draw": lambda: width[0], "array": jnp.ones(3)}
    assert found(tree) == found(tree | {"array": jnp.zeros(3)}) == 2
    assert len(asked) == 1
    width[0] = 5
    assert found(tree) == 5


def test_one_call_looks_once_and_the_next_one_anew():
    width, looked = [2], []

    class Counting:
        def __init__(self):
            self.width = width

        @property
        def __dict__(self):
            looked.append(1)
            return {"width": width}

    found = once_per_shape(lambda tree: tree["draw"].width[0])
    tree = {"draw": Counting(), "array": jnp.ones(3)}
    with looked_at_once():
        assert found(tree) == found(tree) == 2
    once = len(looked)
    width[0] = 5
    with looked_at_once():
        assert found(tree) == 5  # a key that outlived its call would say 2
    assert len(looked) == 2 * once > 0
