r"""Another library's trained model as a chain of ours.

    z_0 = x,    z_{k+1} = sigma_k(W_k z_k + b_k),    the last layer affine: logits, or values

read: scikit-learn (MLP, logistic and linear models, pipelines that scale first), equinox (`MLP`,
`Sequential` of `Linear`), flax (a tree of `kernel` and `bias`), PyTorch (a `Sequential`, or a state
dict of linear layers), lists of `(W, b)`, and what `hj.solve` gives.

A scaler before the network is folded into its first layer, so inputs and radii are in the units of the
raw data. One logit z of two classes becomes the pair (0, z), which has the same probabilities. What a
file of weights does not say, the activation, is asked for: nothing is guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.annotations import shown
from hjcontrol.networks.chain import Chain
from hjcontrol.networks.dense import AffineWeights, Dense
from hjcontrol.networks.foreign_models import (
    ACTIVATIONS,
    Layer,
    gated,
    label_names,
    of_equinox,
    of_mapping,
    of_sklearn,
    of_torch,
)
from hjcontrol.networks.import_checks import agrees_with_sklearn, agrees_with_torch
from hjcontrol.networks.trained import Trained
from hjcontrol.networks.units import identity


def from_model(
    model: Any, *, activation: str | Callable[..., Any] | None = None, labels: Any = None
) -> Trained:
    """A trained model as a chain with its weights, for every question of `hj.analysis`.

    **Arguments:**

    - `model`: scikit-learn's `MLPClassifier`, `MLPRegressor`, `LogisticRegression`, a linear model, or
      a `Pipeline` that ends in one; equinox's `nn.MLP` or `nn.Sequential`; a flax tree of parameters,
      dense layers in the order of their names (a module may call them in another: then give pairs); a
      PyTorch `Sequential` or state dict of linear layers; pairs `(W, b)`, W `(out, in)`; a solution of
      `hj.solve`; a pair `(chain, weights)`.
    - `activation`: between layers, for models that do not carry it (state dict, flax, pairs): a name such
      as `"relu"`, or a function of arrays.
    - `labels`: names of the classes. By default scikit-learn's own; for others `0 .. k - 1` if there
      are k >= 2 outputs, and none (a regression) for one output. Two labels and one output: the output
      is the logit of the second.

    **Raises:** `ValueError` naming the layer that has no place in such a chain, or what is missing.

    **Example:**

        >>> import numpy as np, hjcontrol as hj
        >>> layers = [(np.eye(3), np.zeros(3)), (np.ones((2, 3)), np.zeros(2))]
        >>> hj.networks.from_model(layers, activation="relu").labels
        (0, 1)
    """
    sigma = _activation(activation)
    names = None if labels is None else label_names(labels)
    if isinstance(model, Trained):
        return model
    if isinstance(model, type):
        raise ValueError(f"from_model: a trained model is needed; found {shown(model)}.")
    if type(model).__module__.partition(".")[0] == "sklearn":
        layers, own = of_sklearn(model)
        made = _made(layers, own if names is None else names, guess=False)
        agrees_with_sklearn(model, layers, made.labels)
        return made
    chain, weights = _ours(model)
    if chain is not None:
        if names is None:
            shape = jax.eval_shape(chain, weights, _input(chain))
            names = tuple(range(shape.size)) if shape.ndim == 1 and shape.size > 1 else None
        return Trained(chain, weights, names)
    layers = _layers(model, sigma)
    made = _made(layers, names, guess=True)
    if _is_torch(model):
        agrees_with_torch(model, layers)
    return made


def _is_torch(model: Any) -> bool:
    return hasattr(model, "state_dict") and hasattr(model, "children")


def _layers(model: Any, sigma: Any) -> list[Layer]:
    if isinstance(model, eqx.Module):
        return of_equinox(model)
    if _is_torch(model):
        return of_torch(model)
    if isinstance(model, Mapping):
        return of_mapping(model, sigma)
    if isinstance(model, Sequence) and not isinstance(model, str) and len(model):
        return gated(_pairs(model), sigma)
    raise ValueError(
        "from_model: a scikit-learn, equinox or torch model, a flax tree, a state dict, pairs (W, b) "
        f"or a solution is needed; found {shown(model)}."
    )


def _made(layers: list[Layer], labels: tuple[Any, ...] | None, *, guess: bool) -> Trained:
    dtype = jnp.result_type(float)
    for k, (W, b, _) in enumerate(layers):
        if W.ndim != 2 or b.shape != W.shape[:1] or 0 in W.shape:
            raise ValueError(
                f"from_model: layer {k} needs W (out, in) and b (out,); found {W.shape} and {b.shape}."
            )
        if k and W.shape[1] != len(layers[k - 1][1]):
            raise ValueError(
                f"from_model: layer {k} takes {W.shape[1]} inputs; layer {k - 1} gives "
                f"{len(layers[k - 1][1])}. Layers are read in the order given, those of flax by name: if "
                "yours run in another, give pairs (W, b)."
            )
        if not (np.isfinite(W).all() and np.isfinite(b).all()):
            raise ValueError(f"from_model: layer {k} holds NaN or infinity. Train the model again.")
    outputs = len(layers[-1][1])
    if labels is not None and len(labels) == 2 and outputs == 1:
        W, b, sigma = layers[-1]
        if sigma is not identity:
            raise ValueError(
                "from_model: one output of two classes is a logit: end the model there."
            )
        layers = [*layers[:-1], (np.vstack([0 * W, W]), np.append(0.0, b), identity)]
        outputs = 2
    if labels is None and guess and outputs > 1:
        labels = tuple(range(outputs))
    if labels is not None and len(labels) != outputs:
        raise ValueError(
            f"from_model: a label for each of {outputs} outputs is needed; found {len(labels)}."
            + (" One class cannot be told from another." if len(labels) == 1 else "")
        )
    stages = [Dense(W.shape[1], W.shape[0], sigma) for W, _, sigma in layers]
    thetas = [AffineWeights(jnp.asarray(W, dtype), jnp.asarray(b, dtype)) for W, b, _ in layers]
    chain = Chain(stages, jax.ShapeDtypeStruct((layers[0][0].shape[1],), dtype))
    return Trained(chain, chain.stack(thetas), labels)


def _ours(model: Any) -> tuple[Any, Any]:
    """Chain and weights of what this library made; a pair of `None` for anything else."""
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], Chain):
        return model
    chain = getattr(getattr(model, "problem", None), "chain", None)
    return (chain, model.weights) if isinstance(chain, Chain) else (None, None)


def _input(chain: Chain) -> Any:
    stage = chain[0]
    if not isinstance(stage, Dense):
        raise ValueError(
            f"from_model: the first stage is a {type(stage).__name__}, which does not say how many "
            "inputs or outputs there are. Give `labels=`."
        )
    return jax.ShapeDtypeStruct((stage.in_size,), jnp.result_type(float))


def _activation(activation: str | Callable[..., Any] | None) -> Callable[..., Any] | None:
    if isinstance(activation, str) and activation not in ACTIVATIONS:
        raise ValueError(
            f"from_model: `activation` is a function or one of {', '.join(ACTIVATIONS)}; found "
            f"{activation!r}."
        )
    if activation is not None and not isinstance(activation, str) and not callable(activation):
        raise ValueError(
            f"from_model: `activation` must be a name or a function; found {shown(activation)}."
        )
    return ACTIVATIONS[activation] if isinstance(activation, str) else activation


def _pairs(model: Sequence[Any]) -> list[tuple[Any, Any]]:
    for k, pair in enumerate(model):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ValueError(
                f"from_model: a list holds pairs (W, b); found {shown(pair)} at place {k}."
            )
    return [(W, b) for W, b in model]
