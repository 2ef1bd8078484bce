"""What is passed where a model is meant and is none: each with what to pass in its place.

a module without its weights, weights without their module, the parts of a model in another order
"""

import inspect
import sys
from typing import Any

import equinox as eqx

WANTED = (
    "ControlProblem: a list of stages, an eqx.Module, a pair (apply, params) or a flax NNX module is "
    "needed; found"
)


def check_form(model: Any) -> None:
    """Refuse what another library's users take for a model.

    **Raises:** `ValueError` saying what to pass.
    """
    words = _instead(model)
    if words is not None:
        raise ValueError(f"{WANTED} {words}")


def _instead(model: Any) -> str | None:
    first = model[0] if isinstance(model, tuple) and model else model
    second = model[1] if isinstance(model, tuple) and len(model) > 1 else None
    if type(model).__name__ in ("Transformed", "TransformedWithState"):
        return (
            f"haiku's {type(model).__name__}, whose weights are apart. Pass (net.apply, params), or "
            "(net.apply, params, state), with what `net.init(key, x)` gives."
        )
    if _of("flax.linen", "Module", first):
        return (
            f"the flax linen module {type(first).__name__}, whose weights are apart. Pass (module.apply, "
            "variables), with variables = module.init(key, x)."
        )
    if _of("flax.nnx", "GraphDef", first) or _of("flax.nnx", "State", first):
        return (
            f"the {type(first).__name__} of a flax NNX module. Pass the module, `nnx.merge(...)`."
        )
    if _of("torch.nn", "Module", model):
        return (
            "a PyTorch module, which JAX cannot differentiate. `hj.networks.from_model` reads its "
            "weights, and `hj.verify_torch` verifies it as it is."
        )
    if hasattr(model, "apply_fn") and hasattr(model, "params"):
        return (
            f"a {type(model).__name__}. Pass (state.apply_fn, {{'params': state.params}}), and its "
            "optimiser as `hj.Gradient(optimiser)`."
        )
    if isinstance(model, tuple) and len(model) > 2 and _trains(model[2]) and callable(first):
        return (
            "an optimiser beside (apply, params). Pass these two; the optimiser is a solver, "
            "`hj.Gradient(optimiser)`."
        )
    if isinstance(model, tuple) and len(model) == 2 and arguments(first)[1:3] == ["state", "rng"]:
        return (
            f"a pair ({_name(first)}, params), and that function takes a state too. Pass (apply, params, "
            "state), as `net.init(key, x)` of `hk.transform_with_state` gives them."
        )
    if isinstance(model, tuple) and not callable(first) and callable(second):
        return f"a pair ({type(first).__name__}, {_name(second)}). The function comes first."
    if not isinstance(first, eqx.Module) or not isinstance(model, tuple) or len(model) != 2:
        return _linen_weights(first, second)
    if type(second) is type(first):
        return "the two halves of `eqx.partition`. Pass the model, `eqx.combine(*halves)`."
    if not isinstance(second, (eqx.nn.State, eqx.Module)) and not callable(second):
        return (
            f"a pair ({type(first).__name__}, {type(second).__name__}). An eqx.Module holds its weights: "
            "pass it alone, or (model, state) of `eqx.nn.make_with_state`."
        )
    return None


def _linen_weights(apply: Any, variables: Any) -> str | None:
    """Linen's `apply` with the parameters alone."""
    module = getattr(apply, "__self__", None)
    if not _of("flax.linen", "Module", module) or not isinstance(variables, dict):
        return None
    if "params" in variables or not variables:
        return None
    return (
        f"{type(module).__name__}.apply with {', '.join(map(str, list(variables)[:3]))}, which is not "
        "its tree of variables. Pass (module.apply, {'params': params}), as `module.init` gives them."
    )


def _of(library: str, name: str, value: Any) -> bool:
    """Whether a value is of a class of a library; it is asked only if the user has imported it."""
    kind = getattr(sys.modules.get(library), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _trains(value: Any) -> bool:
    """Whether a value is an optimiser of optax."""
    return isinstance(value, tuple) and getattr(value, "_fields", ()) == ("init", "update")


def arguments(function: Any) -> list[str]:
    """The names of a function's arguments; none of what has no signature."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)
