r"""A chain with the weights it was trained to: what a question is asked about.

    z = chain(weights, x)         outputs of one sample: logits where there are labels, else values
    head      f(x) = lse(z, 1):   the softmax of the logits is the model's own probability

`from_model` makes one of another library's model. A question about logits takes it as it is; one that
needs a single affine layer takes it if it is one, and else names the layer that stands in the way.
"""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import LSE
from hjcontrol.deformation.soft_maximum import checked
from hjcontrol.layers import ClassHead, LogitHead
from hjcontrol.networks.chain import Chain, Weights
from hjcontrol.networks.dense import Dense
from hjcontrol.networks.stage import AbstractStage
from hjcontrol.networks.units import Pointwise, identity


@admits()
class Trained(Shown):
    """A chain and its weights; `chain, weights = trained`. Batch with `jax.vmap`.

    **Arguments:** `chain`: on a state that is one vector of inputs; `weights`: shaped as `chain.init`
    draws them; `labels`: the names of the classes, one an output, or `None` for a regression.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> chain = hj.networks.Chain([hj.networks.readout(2, 3)], jnp.zeros(2))
        >>> model = hj.networks.Trained(chain, chain.init(jax.random.key(0)), ("a", "b", "c"))
        >>> model(jnp.ones(2)).shape
        (3,)
    """

    chain: Chain
    weights: Weights
    labels: tuple[Any, ...] | None = eqx.field(static=True)

    def __init__(self, chain: Chain, weights: Weights, labels: tuple[Any, ...] | None = None):
        """**Raises:** `ValueError` for weights of other shapes."""
        chain.check_weights("Trained", weights)
        self.chain, self.weights, self.labels = chain, weights, labels

    def __iter__(self) -> Iterator[Any]:
        """`chain, weights = trained`."""
        return iter((self.chain, self.weights))

    @property
    def layers(self) -> list[tuple[AbstractStage, Any]]:
        """Every stage with its weights, in order of depth."""
        thetas = self.chain.unstack(self.weights)
        return [(self.chain[k], theta) for k, theta in enumerate(thetas)]

    @property
    def size(self) -> int | None:
        """How many inputs; `None` where the first stage does not say."""
        stage = self.chain[0]
        return stage.in_size if isinstance(stage, Dense) else None

    def __call__(self, x: Real[ArrayLike, " d"]) -> Float[Array, " outputs"]:
        """The outputs of one sample.

        **Raises:** `ValueError` for an `x` of another shape, or known not to be finite.
        """
        x = checked("Trained", x, axes=1, mask=False)
        if self.size not in (None, x.size):
            raise ValueError(
                f"Trained: one sample has shape ({self.size},); found {x.shape}. Batch with `jax.vmap`."
            )
        return self.chain(self.weights, x)

    def predict(self, x: Real[ArrayLike, " d"]) -> Int[Array, ""]:
        """The place in `labels` of the largest output."""
        return jnp.argmax(self(x))


AnyHead = LSE | LogitHead | Trained
AnyClassifier = AnyHead | ClassHead


def stands_in_the_way(model: Trained) -> str | None:
    """The first stage that keeps a model from being one affine map, by place and name."""
    for k, (stage, _) in enumerate(model.layers):
        units = stage.units if isinstance(stage, Dense) else None
        if not isinstance(units, Pointwise):
            return f"stage {k} is a {type(units or stage).__name__}"
        if units.activation is not identity:
            name = getattr(units.activation, "__name__", type(units.activation).__name__)
            return f"stage {k} is not affine ({name})"
    return None


def head_of(who: str, model: Any) -> Any:
    """`model` as a soft maximum of its logits: an `LSE` for one affine map, else a `LogitHead`.

    An `LSE`, `LogitHead` or `ClassHead` comes back as it is.

    **Raises:** `ValueError` for a model without classes.
    """
    if not isinstance(model, Trained):
        return model
    if model.labels is None:
        raise ValueError(
            f"{who}: a model of classes is needed; found a regression. Ask `hj.analysis.attribution."
            "costates`, `robustness.output_bounds` or `tree.model_tree`, which take one."
        )
    if stands_in_the_way(model) is not None:
        return LogitHead(model, 1.0)
    W, b = None, None
    for _, theta in model.layers:
        W, b = (
            (theta.W, theta.b) if W is None or b is None else (theta.W @ W, theta.W @ b + theta.b)
        )
    return LSE(W, b, 1.0)


def affine_head_of(who: str, model: Any) -> LSE:
    """`model` as one soft maximum of affine functions.

    **Raises:** `ValueError` in one line that names what is not affine.
    """
    found = head_of(who, model)
    if isinstance(found, LSE):
        return found
    why = stands_in_the_way(model) if isinstance(model, Trained) else type(found).__name__
    raise ValueError(
        f"{who}: one soft maximum of affine functions (LSE) is needed; found a deep model, {why}. Ask "
        "about its last layer on its features, or a question that takes any depth (`gap`, `attribute`, "
        "`certified_radius`, `model_tree`)."
    )


def class_head_of(who: str, model: Any) -> ClassHead:
    """`model` as a classifier with one atom a class; a `ClassHead` comes back as it is."""
    if not isinstance(model, Trained):
        return model
    head = head_of(who, model)
    return ClassHead(head, list(range(len(model.labels or ()))))
