"""Stating an encoder from named tensors: what is missing, misshapen or of another kind is refused."""

import numpy as np
import pytest

from hjcontrol.networks import sentence_encoder

pytestmark = pytest.mark.any_precision
CONFIG = {
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "layer_norm_eps": 1e-12,
}


def tensors(prefix=""):
    draw = np.random.default_rng(0)
    shapes = {
        "embeddings.word_embeddings.weight": (9, 4),
        "embeddings.position_embeddings.weight": (5, 4),
        "embeddings.token_type_embeddings.weight": (2, 4),
    }
    maps = dict.fromkeys(("self.query", "self.key", "self.value", "output.dense"), (4, 4))
    for k in range(2):
        at = f"encoder.layer.{k}."
        shapes |= {f"{at}attention.{name}.weight": shape for name, shape in maps.items()}
        shapes |= {f"{at}attention.{name}.bias": shape[:1] for name, shape in maps.items()}
        shapes |= {f"{at}intermediate.dense.weight": (6, 4), f"{at}intermediate.dense.bias": (6,)}
        shapes |= {f"{at}output.dense.weight": (4, 6), f"{at}output.dense.bias": (4,)}
    norms = [
        "embeddings",
        *(f"encoder.layer.{k}.{p}output" for k in (0, 1) for p in ("attention.", "")),
    ]
    shapes |= {f"{at}.LayerNorm.{part}": (4,) for at in norms for part in ("weight", "bias")}
    return {prefix + name: draw.standard_normal(shape) for name, shape in shapes.items()}


def test_names_with_and_without_a_prefix_give_the_same_encoder():
    plain, prefixed = (sentence_encoder(tensors(p), CONFIG) for p in ("", "bert."))
    np.testing.assert_array_equal(
        plain.weights[0].attention.key.W, prefixed.weights[0].attention.key.W
    )
    assert plain.weights[0].attention.key.W.shape == (2, 4, 4)
    assert plain.embed(np.array([1, 2, 3])).shape == (3, 4)
    assert plain.embed(np.ones((6, 3), int)).shape == (6, 3, 4)
    with pytest.raises(ValueError, match="6 tokens were given; there are places for 5"):
        plain.embed(np.zeros(6, int))
    with pytest.raises(ValueError, match="numbered 0 to 8; found -1 to 9"):
        plain.embed(np.array([0, -1, 9]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mpnet"}, "`model_type` must be 'bert'; found 'mpnet'"),
        ({"hidden_act": "relu"}, "`hidden_act`"),
        ({"position_embedding_type": "relative_key"}, "`position_embedding_type`"),
        ({"num_attention_heads": 3}, "divide"),
        ({"num_hidden_layers": 3}, "'encoder.layer.2.attention.self.query.weight' is missing"),
        ({"intermediate_size": 5}, r"block 0, .*inward.*\(5, 4\); found \(6, 4\)"),
    ],
)
def test_another_architecture_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        sentence_encoder(tensors(), CONFIG | change)


def test_settings_that_are_missing_are_named():
    with pytest.raises(ValueError, match="lack num_hidden_layers, layer_norm_eps"):
        sentence_encoder(tensors(), {k: v for k, v in CONFIG.items() if "layer" not in k})
