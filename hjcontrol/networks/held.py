"""Which floating arrays of a module are weights, and which are held as they are.

weight  =  floating array  and not  (named in its class's `held`, and not `trainable`; or `frozen`)
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from hjcontrol._ground.annotations import shown


def weights_of(module: eqx.Module, frozen: Any, trainable: Sequence[str]) -> PyTree[bool]:
    """A tree of booleans shaped like the module, `True` for its weights; see `ModuleStage`."""
    paths, structure = jax.tree_util.tree_flatten_with_path(module)
    places = [
        [str(getattr(e, "name", getattr(e, "key", getattr(e, "idx", e)))) for e in path]
        for path, _ in paths
    ]
    floating = [eqx.is_inexact_array(leaf) for _, leaf in paths]

    def named(argument: str, names: Sequence[str]) -> set[int]:
        found = set()
        for name in names:
            parts = name.split(".")
            hits = {
                k
                for k, at in enumerate(places)
                if floating[k] and any(at[i : i + len(parts)] == parts for i in range(len(at)))
            }
            if not hits:
                have = [".".join(at) for at, f in zip(places, floating, strict=True) if f]
                raise ValueError(
                    f"ModuleStage: `{argument}` must name floating arrays of {type(module).__name__}, "
                    f"which has {', '.join(have[:6]) or 'none'}; found {name!r}. (A Python number is "
                    "not an array, and is never trained.)"
                )
            found |= hits
        return found

    frozen = (frozen,) if isinstance(frozen, str) else frozen
    if isinstance(frozen, (tuple, list)) and all(isinstance(name, str) for name in frozen):
        asked = named("frozen", frozen)
    elif callable(frozen) and not isinstance(frozen, eqx.Module):
        asked = {k for k, (_, leaf) in enumerate(paths) if floating[k] and _true(frozen, leaf)}
    else:
        numbered = jax.tree.unflatten(structure, range(len(paths)))
        try:
            asked = set(jax.tree.leaves(eqx.filter(numbered, frozen)))
        except ValueError as error:
            raise ValueError(
                "ModuleStage: `frozen` must be names of fields, or a filter that fits "
                f"{type(module).__name__}: a tree of booleans or a function; found {shown(frozen)}."
            ) from error
    trainable = (trainable,) if isinstance(trainable, str) else trainable
    held = {k for k, (path, _) in enumerate(paths) if _named_by_its_class(module, path)}
    held = (held - named("trainable", trainable)) | asked
    return jax.tree.unflatten(structure, [f and k not in held for k, f in enumerate(floating)])


def _true(frozen: Any, leaf: Any) -> bool:
    try:
        return bool(frozen(leaf))
    except Exception as error:  # the user's function: whatever it raises
        raise ValueError(
            "ModuleStage: `frozen` as a function is called as frozen(leaf), and says whether that array "
            f"is held; of {shown(leaf)} it fails: {str(error).splitlines()[0]}"
        ) from error


def _named_by_its_class(module: Any, path: tuple) -> bool:
    """Whether a class along the path names the field that follows as `held`."""
    node = module
    for entry in path:
        held = getattr(type(node), "held", ())
        if isinstance(held, (tuple, list)) and getattr(entry, "name", None) in held:
            return True
        if hasattr(entry, "name"):
            node = getattr(node, entry.name)
        elif isinstance(node, (list, tuple, dict)):
            node = node[entry.key if hasattr(entry, "key") else entry.idx]
        else:
            return False
    return False
