"""Does a certificate judge alike at every scale and offset? 600 candidates of 12 layers.

Logits and temperature times 1e-12 .. 1e12, a common offset 0 .. 1e12 where the layer does not see one.
Half of the candidates are right (the layer's own answer at those logits), half are wrong by 1e-4 or more.
"""

import itertools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.layers import BinaryEntropy, Separable, Shannon, build

jax.config.update("jax_enable_x64", True)
SCALES = (1e-12, 1e-6, 1.0, 1e6, 1e12)
OFFSETS = (0.0, 1.0, 1e4, 1e8, 1e12)
SHIFTED = ("softmax", "max", "sparsemax", "entmax", "top-k", "permutahedron", "lml", "csoftmax")
OTHERS = ("softplus", "clip", "l2-ball", "tanh")


def made(name, eps):
    if name == "lml":
        return Separable(BinaryEntropy(), eps, total=2)
    if name == "csoftmax":
        return Separable(Shannon(), eps, total=1, hi=jnp.full(6, 0.4))
    return build(name, eps)


def candidates():
    """Name, layer, logits, candidate, whether it is right."""
    rng = np.random.default_rng(0)
    for name in (*SHIFTED, *OTHERS):
        usual = 0.0 if name == "max" else 0.5
        for scale, offset in itertools.product(SCALES, OFFSETS):
            z = jnp.asarray(scale * (rng.standard_normal(6) + (offset if name in SHIFTED else 0.0)))
            layer = made(name, usual * scale)
            right = layer(z)
            yield name, layer, z, right, True
            size = 10.0 ** rng.uniform(-4, -1)
            push = size * scale * rng.standard_normal(6)
            wrong = layer(z + push) if name != "max" else jnp.roll(right, 1)
            if bool(jnp.max(jnp.abs(wrong - right)) < 1e-5 * jnp.max(jnp.abs(right))):
                wrong = (1 - size) * right + size * jnp.roll(right, 1)
            yield name, layer, z, wrong, False


def measure():
    judge = eqx.filter_jit(lambda layer, z, p: layer.certify(z, p))
    seen, accepted, refused, near = 0, [], [], 0
    for name, layer, z, p, right in candidates():
        verdict = judge(layer, z, p).verdict
        seen += 1
        if right and verdict != "optimal":
            refused.append((name, z, verdict))
        if not right and verdict == "optimal":
            accepted.append((name, z, p))
        near += not right and verdict == "near-optimal"
    return seen, accepted, refused, near


if __name__ == "__main__":
    seen, accepted, refused, near = measure()
    print(
        f"{seen} candidates: {len(accepted)} wrong ones accepted, {len(refused)} right ones refused"
    )
    print(f"{near} wrong ones are near-optimal: their gap is closed, and a coordinate is named")
    for row in [*accepted, *refused]:
        print(*row)
    sys.exit(bool(accepted or refused))
