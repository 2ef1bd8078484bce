"""Arrays on a mesh of explicit axes, as they are meant: laid out by the compiler.

    jax.make_mesh((8,), ("samples",))        its axes are Explicit: types carry the layout

Under explicit axes every operation must say how its result is laid out. The numerics here leave that to
the compiler, which is what axes of the kind Auto mean: the same devices, the same pieces, nothing moved.
A mesh of explicit axes that `jax.set_mesh` has set is set aside while a public function runs.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from hjcontrol._ground.concrete import traced

F = TypeVar("F", bound=Callable[..., Any])


def automatic(tree: Any) -> Any:
    """The same arrays, those on explicit axes on automatic ones; what is traced stays as it is."""
    return jax.tree.map(_one, tree)


def check_devices(who: str, **named: Any) -> None:
    """Refuse arrays that are placed on meshes of different devices, which no program takes together.

    **Raises:** `ValueError`.
    """
    placed: dict[Any, str] = {}
    for name, tree in named.items():
        for leaf in jax.tree.leaves(tree):
            own = None if traced(leaf) else getattr(leaf, "sharding", None)
            if isinstance(own, NamedSharding):
                placed.setdefault(frozenset(own.device_set), name)
    if len(placed) > 1:
        found = " and ".join(f"`{name}` on {len(on)} devices" for on, name in placed.items())
        raise ValueError(
            f"{who}: all arrays must be placed on the same devices; found {found}. Place them by one "
            "mesh, as `jax.device_put(array, jax.NamedSharding(mesh, jax.P('samples')))`."
        )


def explicit() -> bool:
    """Whether `jax.set_mesh` has set a mesh with explicit axes."""
    return AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types


def aside(who: str, function: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a function without the mesh that `jax.set_mesh` has set. Its arguments come on automatic axes;
    the arrays that it returns are on the set mesh's own, except those of a problem, which stay.

    **Raises:** `ValueError` under `jit`, `vmap` or `grad`, where the mesh cannot be set aside.
    """
    try:
        mesh = jax.sharding.get_mesh()
    except ValueError as error:
        raise ValueError(
            f"{who}: found a mesh of Explicit axes under jit, vmap or grad, where hjcontrol needs Auto "
            "axes. Call it by `jax.sharding.auto_axes(function, out_sharding=jax.P())`, or make the mesh "
            "by `jax.make_mesh(shape, names, axis_types=(jax.sharding.AxisType.Auto,) * len(names))`."
        ) from error

    def back(leaf: Any) -> Any:
        own = getattr(leaf, "sharding", None)
        if not isinstance(leaf, jax.Array) or not isinstance(own, NamedSharding):
            return leaf
        same = np.array_equal(own.mesh.device_ids, mesh.device_ids)
        same = same and own.mesh.axis_names == mesh.axis_names
        return jax.device_put(leaf, NamedSharding(mesh, own.spec)) if same else leaf

    stays = lambda node: getattr(type(node), "keeps_its_axes", False)
    with jax.set_mesh(None):
        found = function(*map(_moved, args), **{name: _moved(a) for name, a in kwargs.items()})
    return jax.tree.map(lambda a: a if stays(a) else back(a), found, is_leaf=stays)


def off_the_mesh(function: F) -> F:
    """A function that is called by `aside` where `jax.set_mesh` has set explicit axes."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if explicit():
            return aside(function.__name__, function, args, kwargs)
        return function(*args, **kwargs)

    return cast(F, called)


def _moved(argument: Any) -> Any:
    """`automatic`, and the very object where there is nothing to move."""
    if any(_one(leaf) is not leaf for leaf in jax.tree.leaves(argument)):
        return automatic(argument)
    return argument


def _one(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or traced(leaf):
        return leaf
    own = leaf.sharding
    if not isinstance(own, NamedSharding) or AxisType.Explicit not in own.mesh.axis_types:
        return leaf
    mesh = own.mesh
    mesh = Mesh(mesh.devices, mesh.axis_names, (AxisType.Auto,) * len(mesh.axis_names))
    return jax.device_put(leaf, NamedSharding(mesh, own.spec))
