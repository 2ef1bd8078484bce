"""`hjcontrol explore`: one page on which a layer is read at any eps.

A layer comes from a file, from your own module, or from data: then samples are the atoms.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hjcontrol as hj
from hjcontrol._ground.record import Record
from hjcontrol.cli.command import Answer, Command
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.schema import folder, magnitude, option, string
from hjcontrol.cli.sources import Head, read_head
from hjcontrol.cli.terminal import Screen

ATOMS, EPS = 20, 0.3  # atoms a class where the data are the model; their temperature


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `explore` is to do."""

    model: str | None = option(
        None, string, "FILE.npz: W, b, perhaps eps, classes; or MODULE:OBJECT, an LSE or ClassHead",
        "MODEL", kind="argument", shown="samples of the data are the atoms",
    )  # fmt: skip
    data: str | None = option(
        None,
        string,
        "inputs to read the layer at",
        "DATA",
        shown="digits, or the layer's own atoms",
    )
    eps: float | None = option(
        None, magnitude(above=False), "temperature at the start", "EPS", shown="the layer's own"
    )
    out: Path = folder("explore")


def run(asked: Asked, screen: Screen) -> Iterator[Answer]:
    """Gather model and inputs; the page is the answer."""
    from hjcontrol.reporting.explorer import TOLD, explorer, write_explorer

    del screen
    model = None if asked.model is None else read_head(asked.model, asked.eps)
    data = hj.data.load(asked.data or "digits") if asked.data or model is None else None
    head, given = (model, _inputs(data)) if model is not None else _of_data(data, asked.eps)
    try:
        found = explorer(head.model, **given, title=head.name)
    except ValueError as error:
        raise CommandError(str(error)) from None
    own = float(found.layer.eps)
    first = found.reading(found.shown[0], own)
    page = asked.out / "explore.html"
    classless = "none: a radius holds a class, and this layer has none"
    shown = {k: classless if k == "radius" and math.isnan(first[k]) else first[k] for k in TOLD}
    record = Record(
        head.name,
        f"{found.layer.b.size} atoms, {found.layer.W.shape[1]} inputs; {len(found.shown)} to pick from",
        facts={"eps": own} | {f"{name}, first input": shown[name] for name in TOLD},
    )
    yield Answer(
        {"model": head.name, "eps": own, "first": {k: first[k] for k in TOLD}},
        lambda: record,
        told=(f"open {page}",),
        files={"explore.html": lambda path: write_explorer(path, found)},
    )


def _inputs(data: Any) -> dict[str, Any]:
    """The first samples of the data, to pick from; all of them (at most 400) to measure distance to."""
    if data is None:
        return {}
    names = data.classes
    label = lambda y: names[int(y)] if names else str(y)
    return {
        "samples": data.features[:400],
        "shown": data.features[:24],
        "labels": [label(y) for y in data.targets[:24]],
        "names": names,
    }


def _of_data(data: Any, eps: float | None) -> tuple[Head, dict[str, Any]]:
    """A layer whose atoms are the first samples of each class, at t = 1/2: `z_j = x.y_j - |y_j|^2/2`."""
    import jax.numpy as jnp
    import numpy as np

    if data.classes is None:
        raise CommandError(
            f"{data.name}: classes are needed, of which samples are the atoms; found none."
        )
    X, y = np.asarray(data.features, float), np.asarray(data.targets, int)
    spread = X.std(axis=0)
    image = X.shape[1] == 64 and X.min() >= 0
    X = X / X.max() if image else (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    atoms = np.sort(
        np.concatenate([np.flatnonzero(y == c)[:ATOMS] for c in range(len(data.classes))])
    )
    rest = np.setdiff1d(np.arange(len(X)), atoms)[:24]
    rest = atoms[:24] if len(rest) == 0 else rest
    W = X[atoms]
    layer = hj.layers.LSE(W, -jnp.sum(W**2, axis=1) / 2, EPS if eps is None else eps)
    name = f"{data.name}: {len(atoms)} samples as atoms, {'pixels 0 to 1' if image else 'standardised'}"
    given = {
        "samples": W,
        "shown": X[rest],
        "labels": [data.classes[c] for c in y[rest]],
        "names": data.classes,
    }
    return Head(hj.layers.ClassHead(layer, y[atoms]), name), given


EXPLORE = Command(
    "explore",
    """Write one page on which a layer is read at any temperature: value, weights, radius, tree.

    Writes explore.html, which needs nothing beside itself, and result.json. Exit code 0: it is written.
    """,
    Asked,
    run,
    page=None,
)
