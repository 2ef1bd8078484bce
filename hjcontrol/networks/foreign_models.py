r"""What layers other libraries' models are made of: affine maps, and what stands between them.

    layer = (W, b, sigma)        z -> sigma(W z + b),  W (out, in)

No other library is imported here: a model is known by where its class lives and by its attributes.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.annotations import shown
from hjcontrol.networks.units import gelu, identity

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "elu": jax.nn.elu,
    "gelu": gelu,
    "identity": identity,
    "leaky_relu": jax.nn.leaky_relu,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}
_SKLEARN = {"identity": identity, "logistic": jax.nn.sigmoid, "relu": jax.nn.relu, "tanh": jnp.tanh}
_TORCH = {
    "ELU": "elu", "GELU": "gelu", "Identity": "identity", "ReLU": "relu", "Sigmoid": "sigmoid",
    "SiLU": "silu", "Softplus": "softplus", "Tanh": "tanh",
}  # fmt: skip
_SILENT = ("Dropout", "Flatten")  # do nothing to one vector, once trained

Layer = tuple[np.ndarray, np.ndarray, Callable[..., Any]]


def label_names(labels: Any) -> tuple[Any, ...]:
    """Labels as plain Python values."""
    return tuple(a.item() if isinstance(a, np.generic) else a for a in np.asarray(labels).ravel())


def host(array: Any) -> np.ndarray:
    """An array of any library as float64 on the host."""
    for step in ("detach", "cpu", "toarray"):  # the last one of a sparse matrix
        array = getattr(array, step)() if hasattr(array, step) else array
    try:
        if np.iscomplexobj(array):
            raise TypeError
        return np.asarray(array, float)
    except (TypeError, ValueError):
        raise ValueError(
            f"from_model: weights must be real numbers; found {shown(array)}."
        ) from None


def gated(pairs: list[tuple[Any, Any]], sigma: Callable[..., Any] | None) -> list[Layer]:
    """Affine maps with `sigma` between them, and nothing after the last."""
    if not pairs:
        raise ValueError("from_model: at least one layer is needed; found none.")
    if sigma is None and len(pairs) > 1:
        raise ValueError(
            f"from_model: these weights do not say what stands between their {len(pairs)} layers. Give "
            '`activation="relu"`, or another of ' + ", ".join(ACTIVATIONS) + "."
        )
    between = identity if sigma is None else sigma
    last = len(pairs) - 1
    return [
        (host(W), host(b), identity if k == last else between) for k, (W, b) in enumerate(pairs)
    ]


# ------------------------------------------------------------------------------------ scikit-learn


def of_sklearn(model: Any) -> tuple[list[Layer], tuple[Any, ...] | None]:
    """Layers of a fitted scikit-learn model, and the names of its classes."""
    name = type(model).__name__
    if name == "Pipeline":
        return _of_pipeline(model)
    if hasattr(model, "best_estimator_"):
        return of_sklearn(model.best_estimator_)
    classes = getattr(model, "classes_", None)
    if hasattr(model, "coefs_"):
        between, last = _SKLEARN[model.activation], model.out_activation_
        several = last == "logistic" and model.n_outputs_ > 1
        if several or last not in ("identity", "logistic", "softmax"):
            raise ValueError(
                f"from_model: this {name} ends in {model.n_outputs_} {last} outputs"
                + (", several labels a sample; a class each is read." if several else ".")
            )
        weights = [(W.T, b) for W, b in zip(model.coefs_, model.intercepts_, strict=True)]
        return gated(weights, between), None if classes is None else label_names(classes)
    if hasattr(model, "coef_") and hasattr(model, "intercept_"):
        if hasattr(model, "support_vectors_") and getattr(model, "kernel", "linear") != "linear":
            raise ValueError(
                f"from_model: this {name} has a {model.kernel} kernel: no affine layer."
            )
        W = np.atleast_2d(host(model.coef_))
        b = np.broadcast_to(np.ravel(host(model.intercept_)), len(W))
        return gated([(W, b)], None), None if classes is None else label_names(classes)
    fitted = "is not fitted: call `fit`" if hasattr(model, "fit") else "has no layers"
    if hasattr(model, "n_features_in_"):
        fitted = "is fitted, and has neither layers nor coefficients"
    raise ValueError(
        f"from_model: {name} {fitted}. MLPs, logistic and linear models, and pipelines that scale "
        "first, are read."
    )


def _of_pipeline(model: Any) -> tuple[list[Layer], tuple[Any, ...] | None]:
    *before, (_, last) = model.steps
    layers, labels = of_sklearn(last)
    for name, step in reversed(before):
        if step is None or step == "passthrough":
            continue
        A, c = _affine_step(name, step)
        (W, b, sigma), *rest = layers
        if W.shape[1] != len(A):
            raise ValueError(
                f"from_model: step {name!r} gives {len(A)} columns; the next takes {W.shape[1]}."
            )
        layers = [(W @ A, b + W @ c, sigma), *rest]
    return layers, labels


def _affine_step(name: str, step: Any) -> tuple[np.ndarray, np.ndarray]:
    """`A x + c` of a fitted step that scales or turns."""
    kind, d = type(step).__name__, int(getattr(step, "n_features_in_", 0))
    one, zero = np.ones(d), np.zeros(d)
    if kind == "Pipeline":
        whole, shift = np.eye(d), zero
        for inner, part in step.steps:
            if part is not None and part != "passthrough":
                A, c = _affine_step(f"{name}.{inner}", part)
                whole, shift = A @ whole, A @ shift + c
        return whole, shift
    clips = getattr(step, "clip", False)
    if kind in ("StandardScaler", "RobustScaler", "MaxAbsScaler") and d and not clips:
        scale = getattr(step, "scale_", None)
        centre = getattr(step, "mean_", getattr(step, "center_", None))
        scale = one if scale is None else host(scale)
        keeps = getattr(step, "with_mean", True) and centre is not None
        return np.diag(1 / scale), -host(centre) / scale if keeps else zero
    if kind == "MinMaxScaler" and d and not clips:
        return np.diag(host(step.scale_)), host(step.min_)
    if kind == "PCA" and d:
        A = host(step.components_)
        if step.whiten:
            A = A / np.sqrt(host(step.explained_variance_))[:, None]
        return A, -A @ host(step.mean_)
    raise ValueError(
        f"from_model: step {name!r} is a {kind}, which is not an affine map that is read. Scalers "
        "without clipping and PCA are. Apply it to the data, and import the last step."
    )


# ------------------------------------------------------------------------ equinox, flax, PyTorch


def of_equinox(model: eqx.Module) -> list[Layer]:
    """Layers of an `MLP`, `Sequential` or `Linear` of equinox."""
    if isinstance(model, eqx.nn.MLP):
        between, last = _known(model.activation), _known(model.final_activation)
        linear = [_linear(k, layer) for k, layer in enumerate(model.layers)]
        end = len(linear) - 1
        return [(W, b, last if k == end else between) for k, (W, b) in enumerate(linear)]
    if isinstance(model, eqx.nn.Linear):
        return [(*_linear(0, model), identity)]
    if isinstance(model, eqx.nn.Sequential):
        return _sequence(_flat(model), "equinox")
    raise ValueError(
        f"from_model: an eqx.nn.MLP, Sequential or Linear is read; found {type(model).__name__}. State "
        "it as `hj.networks.Chain([module], x)` and give the pair (chain, weights)."
    )


def _flat(model: eqx.nn.Sequential) -> list[Any]:
    parts = [_flat(a) if type(a) is eqx.nn.Sequential else [a] for a in model.layers]
    return [part for inner in parts for part in inner]


def _linear(k: int, layer: Any) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if type(layer).__name__ != "Linear" or weight is None or weight.ndim != 2:
        raise ValueError(
            f"from_model: layer {k} is a {type(layer).__name__}; `Linear` and activations of each unit "
            "are read."
        )
    W = host(weight)
    return W, np.zeros(len(W)) if bias is None else host(bias)


def _known(activation: Any) -> Callable[..., Any]:
    """The activation, with equinox's own identity as ours."""
    return identity if getattr(activation, "__name__", "") == "_identity" else activation


def of_torch(model: Any) -> list[Layer]:
    """Layers of a PyTorch `Sequential` or `Linear`."""
    return _sequence(_in_turn(model), "torch")


def _in_turn(model: Any) -> list[Any]:
    """The modules that a `Sequential` calls, those of inner ones in their place.

    **Raises:** `ValueError` for a module whose `forward` is its own: what it calls is not written down.
    """
    children = list(model.children())
    if not children:
        return [model]
    bases = [c for c in type(model).__mro__ if c.__module__.startswith("torch.nn.")]
    plain = any(c.__name__ == "Sequential" and type(model).forward is c.forward for c in bases)
    if not plain:
        raise ValueError(
            f"from_model: {type(model).__name__} has a `forward` of its own, which does not say which "
            "layers it calls in which order. Give a torch.nn.Sequential, or pairs (W, b)."
        )
    return [part for child in children for part in _in_turn(child)]


def _sequence(parts: list[Any], source: str) -> list[Layer]:
    """Linear layers and activations in turn; what is neither is named."""
    layers: list[Layer] = []
    for k, part in enumerate(parts):
        kind = type(part).__name__
        if kind == "Linear":
            layers.append((*_linear(k, part), identity))
            continue
        if kind in _SILENT:
            continue
        found = _known(part.fn) if source == "equinox" and kind == "Lambda" else None
        if source == "torch":
            found = _torch_activation(part)
        if found is None or not layers or layers[-1][2] is not identity:
            raise ValueError(
                f"from_model: layer {k} is a {kind}; `Linear` layers with activations of each unit "
                "between them are read."
            )
        layers[-1] = (*layers[-1][:2], found)
    if not layers:
        raise ValueError("from_model: at least one `Linear` layer is needed; found none.")
    return layers


def _torch_activation(part: Any) -> Callable[..., Any] | None:
    kind = type(part).__name__
    plain = {
        "ELU": {"alpha": 1.0},
        "Softplus": {"beta": 1, "threshold": 20},
        "GELU": {"approximate": "none"},
    }
    for name, usual in plain.get(kind, {}).items():
        if getattr(part, name) != usual:
            raise ValueError(
                f"from_model: {kind} with {name} = {getattr(part, name)!r} is not read; {usual!r} is."
            )
    if kind == "LeakyReLU":
        slope = float(part.negative_slope)
        return jax.nn.leaky_relu if slope == 0.01 else jax.tree_util.Partial(leaky, slope)
    return ACTIVATIONS[_TORCH[kind]] if kind in _TORCH else None


def leaky(slope: float, a: Any) -> Any:
    """`a` above zero, `slope a` below."""
    return jnp.where(a >= 0, a, slope * a)


def of_mapping(model: Mapping[str, Any], sigma: Callable[..., Any] | None) -> list[Layer]:
    """Layers of a flax tree of parameters, or of a PyTorch state dict."""
    tree = model.get("params", model)
    if isinstance(tree, Mapping) and any(isinstance(v, Mapping) for v in tree.values()):
        return gated(_of_flax(tree), sigma)
    found: dict[str, dict[str, Any]] = {}
    for key, value in model.items():
        place, _, what = str(key).rpartition(".")
        shape = np.shape(host(value))
        if what not in ("weight", "bias") or len(shape) != (2 if what == "weight" else 1):
            raise ValueError(
                f"from_model: {key!r} of shape {shape} is no linear layer's weight or bias. Linear "
                "layers are read."
            )
        found.setdefault(place, {})[what] = value
    return gated([_pair(place, part) for place, part in found.items()], sigma)


def _pair(place: str, part: Mapping[str, Any]) -> tuple[Any, Any]:
    if "weight" not in part:
        raise ValueError(f"from_model: layer {place!r} has no linear layer's weight.")
    return part["weight"], part.get("bias", np.zeros(np.shape(host(part["weight"]))[0]))


def _of_flax(tree: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    number = lambda name: [
        int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)
    ]
    pairs = []
    shapes = {k: np.shape(p["kernel"]) for k, p in tree.items() if _is_dense(p)}
    if len(shapes) == len(tree) and not all(re.search(r"\d", name) for name in tree):
        found = _orders(shapes)
        if len(found) > 1:
            raise ValueError(
                f"from_model: the names of these flax layers, {', '.join(tree)}, do not say their order, "
                "and their shapes fit more than one. Give pairs (W, b) in the order of the calls."
            )
        tree = {name: tree[name] for name in (found[0] if found else tree)}
        number = list(tree).index
    for name in sorted(tree, key=number):
        part = tree[name]
        kernel = part.get("kernel") if isinstance(part, Mapping) else None
        if kernel is None or np.ndim(kernel) != 2 or not set(part) <= {"kernel", "bias"}:
            raise ValueError(
                f"from_model: {name!r} of the flax tree is no dense layer (kernel and bias). Dense "
                "layers in the order of their names are read."
            )
        W = host(kernel).T
        pairs.append((W, part.get("bias", np.zeros(len(W)))))
    return pairs


def _is_dense(part: Any) -> bool:
    return isinstance(part, Mapping) and np.ndim(part.get("kernel")) == 2


def _orders(shapes: dict[str, tuple[int, ...]]) -> list[tuple[str, ...]]:
    """Orders in which each layer takes what the one before gives; two show that several fit."""
    found: list[tuple[str, ...]] = []

    def further(order: tuple[str, ...]) -> None:
        if len(order) == len(shapes):
            found.append(order)
        for name, shape in shapes.items():
            fits = not order or shapes[order[-1]][1] == shape[0]
            if name not in order and fits and len(found) < 2:
                further((*order, name))

    further(())
    return found
