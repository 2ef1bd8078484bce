"""The gallery of layers, from the registry: `docs/layers.md`, one picture each in `docs/assets/layers/`.

    python .ci/layers_page.py            write
    python .ci/layers_page.py --check    fail if the page or a picture's name is out of date

A picture shows every entry of the answer while the first logit runs from -3 to 3 and the others stay.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PAGE, PICTURES = ROOT / "docs/layers.md", ROOT / "docs/assets/layers"
COLOURS = ("#3949ab", "#e65100", "#2e7d32", "#ad1457", "#00838f", "#6d4c41")
WIDTH, HEIGHT, STEPS = 220, 120, 61
OPENING = """# Gallery of layers

A layer is `argmax over p in C of p.z - eps Omega(p)`. Each picture shows every entry of the answer while
the first logit runs from -3 to 3 and the others stay. `hj.layers.build(NAME)` makes the layer,
`layer.as_cvxpy(z)` is its program, `layer.certify(z, p)` judges any answer.

## Your own layer

State `phi`, a box and one sum; value, argmax, derivatives (also in the bounds, the sum and its weights),
the certificate and the cvxpy program follow.

```python
import jax, jax.numpy as jnp, hjcontrol as hj
from hjcontrol.layers import BinaryEntropy, Potential, Separable, Shannon

z = jnp.array([1.0, -1.0, -1.0, -1.0])
top_2 = Separable(BinaryEntropy(), total=2)  # entropic top-k
capped = lambda caps: Separable(Shannon(), total=1, hi=caps)  # softmax, no entry above its cap
quartic = Potential(lambda p: p**4 / 4, lo=-1.0, hi=1.0)  # a phi of one's own: its value is enough

assert top_2.certify(z).verdict == "optimal"
caps = jnp.array([0.3, 0.3, 0.4, 0.5])
slope = jax.jacobian(lambda caps: capped(caps)(z))(caps)  # what each cap does to each entry
assert abs(slope[1, 0] + 1 / 3) < 1e-6
assert Separable(quartic, eps=0.5)(z).shape == (4,)
```

A polyhedron is a program of its own: state it in cvxpy and pass it to `hj.layers.ProgramLayer`.

A certificate has no units: the verdict is the same for logits and temperature times 1e-12 and, where a
sum is fixed, for 1e10 added to every logit. Where the logits are rounded more coarsely than what would
decide, it is `undecidable in float64`; with given multipliers that prove too little, `not certified`.

"""


def picture(layer, shape: tuple[int, ...]) -> str:
    """Entries of the argmax along a line, as an SVG of a few hundred numbers."""
    rest = np.random.default_rng(7).standard_normal(shape)
    line = np.linspace(-3.0, 3.0, STEPS)
    z = np.repeat(rest[None], STEPS, axis=0)
    z.reshape(STEPS, -1)[:, 0] = line
    p = np.asarray(jax.jit(jax.vmap(layer))(jnp.asarray(z))).reshape(STEPS, -1)[:, :6]
    low, high = min(0.0, float(p.min())), max(0.0, float(p.max()))
    x = 8 + (WIDTH - 16) * (line + 3) / 6
    y = HEIGHT - 8 - (HEIGHT - 16) * (p - low) / ((high - low) or 1.0)
    zero = HEIGHT - 8 - (HEIGHT - 16) * (0.0 - low) / ((high - low) or 1.0)
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}">',
        f'<path d="M8 {zero:.1f}H{WIDTH - 8}" stroke="#9e9e9e" stroke-width="1"/>',
    ]
    for k in range(p.shape[1]):
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y[:, k], strict=True))
        colour = COLOURS[k % len(COLOURS)]
        rows.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'
        )
    return "\n".join([*rows, "</svg>", ""])


def page() -> str:
    """The page's text."""
    from hjcontrol.layers import FURTHER, REGISTRY

    parts = [OPENING]
    titles = (("## With every engine", REGISTRY), ("## That differ by a set", FURTHER))
    for title, entries in titles:
        parts.append(
            f"{title}\n\n| | name | argmax | value | set, regulariser |\n|---|---|---|---|---|\n"
        )
        for name, entry in entries.items():
            layer = entry.build(entry.eps or 0.3)
            cells = (entry.argmax, entry.value, f"{layer.domain}; {layer.regulariser}")
            words = " | ".join(cell.replace("|", "\\|") for cell in cells)
            image = f"![{name}: its entries along the first logit](assets/layers/{name}.svg)"
            parts.append(f"| {image} | `{name}` | {words} |\n")
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


def main() -> int:
    jax.config.update("jax_enable_x64", True)
    from hjcontrol.layers import FURTHER, REGISTRY

    entries, text = REGISTRY | FURTHER, page()
    if "--check" in sys.argv:
        found = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        drawn = {path.stem for path in PICTURES.glob("*.svg")}
        if found != text or drawn != set(entries):
            print("docs/layers.md is out of date: run `python .ci/layers_page.py`")
            return 1
        return 0
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in PICTURES.glob("*.svg"):
        path.unlink()
    for name, entry in entries.items():
        drawn = picture(entry.build(entry.eps), entry.shape)
        (PICTURES / f"{name}.svg").write_text(drawn, encoding="utf-8")
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
