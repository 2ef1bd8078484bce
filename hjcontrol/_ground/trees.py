"""Trees of arrays in annotations: jaxtyping's when the program runs, `Any` to a type checker.

A type checker cannot read `jaxtyping.PyTree`: every signature that holds one is "partially unknown" to a
user's strict script. Where a field or an argument is public, it is annotated by one of these.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

if TYPE_CHECKING:
    Tree: TypeAlias = Any
    TreeLike: TypeAlias = Any
    AnyTree: TypeAlias = Any
else:
    Tree = PyTree[Array]  # every leaf an array
    TreeLike = PyTree[ArrayLike]  # every leaf an array, or what becomes one
    AnyTree = PyTree  # any leaves
