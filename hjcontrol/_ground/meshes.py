"""Arrays on a mesh of explicit axes, as they are meant: laid out by the compiler.

    jax.make_mesh((8,), ("samples",))        its axes are Explicit: types carry the layout

Under explicit axes every operation must say how its result is laid out. The numerics here leave that to
the compiler, which is what axes of the kind Auto mean: the same devices, the same pieces, nothing moved.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding

from hjcontrol._ground.concrete import traced


def automatic(tree: Any) -> Any:
    """The same arrays, those on explicit axes on automatic ones; what is traced stays as it is."""
    return jax.tree.map(_one, tree)


def _one(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or traced(leaf):
        return leaf
    own = leaf.sharding
    if not isinstance(own, NamedSharding) or AxisType.Explicit not in own.mesh.axis_types:
        return leaf
    mesh = own.mesh
    mesh = Mesh(mesh.devices, mesh.axis_names, (AxisType.Auto,) * len(mesh.axis_names))
    return jax.device_put(leaf, NamedSharding(mesh, own.spec))
