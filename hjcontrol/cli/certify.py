"""`hjcontrol certify`: is this candidate, computed by any program, the answer of that layer?.

The candidate comes as arrays `z` (logits) and `p` of an NPZ file, one sample or many. Each sample gets
its residuals, its gap and a verdict; nothing is solved again.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hjcontrol as hj
from hjcontrol._ground.record import Quantity, Record, figure
from hjcontrol.cli.command import REFUTED, SHOWN, Answer, Command
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.schema import folder, magnitude, option, string
from hjcontrol.cli.terminal import Screen

ROWS = 12  # samples in the table; result.json has all


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `certify` is to do."""

    candidate: str = option(
        dataclasses.MISSING, string, "arrays `z` and `p`", "CANDIDATE.npz", kind="argument"
    )
    layer: str = option(dataclasses.MISSING, string, "see `hjcontrol list layers`", "NAME")
    eps: float | None = option(
        None, magnitude(above=False), "temperature", "EPS", shown="the layer's own"
    )
    tolerance: float | None = option(
        None, magnitude(above=False), "of every residual and of the gap", "TOL", shown="1e-9"
    )
    out: Path = folder("certify")


def run(asked: Asked, screen: Screen) -> Iterator[Answer]:
    """Judge every sample of the file."""
    del screen
    import jax

    from hjcontrol.layers.registry import build

    source, name, known = asked.candidate, asked.layer, hj.layers.REGISTRY
    if name not in known:
        raise CommandError(f"--layer: the layers are {', '.join(known)}; found {name!r}.")
    layer = build(name, asked.eps)
    z, p = _samples(source, len(known[name].shape))
    certify = lambda a, b: layer.certify(a, b, tol=asked.tolerance)
    try:
        found = jax.jit(jax.vmap(certify))(z, p)
    except (
        ValueError,
        TypeError,
    ) as error:  # TypeError: another number of logits than the layer has
        raise CommandError(f"{source}: {error}") from None
    rows = _rows(found)
    certified, whole = sum(r["certified"] for r in rows), all(r["certified"] for r in rows)
    worst = sorted(rows, key=lambda r: -_badness(r))[:ROWS]

    def record() -> Record:
        eps, tolerance = figure(float(layer.eps)), f"{rows[0]['tolerance']:.0e}"
        return Record(
            f"{name} at eps = {eps}",
            f"{certified} of {len(rows)} certified at tolerance {tolerance}",
            verdict="certified" if whole else "not certified",
            tone="good" if whole else "bad",
            rows={"the worst first" if len(rows) > 1 else "": [_cells(r) for r in worst]},
        )

    yield Answer(
        {"layer": name, "eps": float(layer.eps), "certified": certified, "samples": rows},
        record,
        code=SHOWN if whole else REFUTED,
    )


def _samples(source: str, axes: int) -> tuple[Any, Any]:
    """Logits and candidates with a leading sample axis."""
    import numpy as np

    from hjcontrol.data.loading import npz_arrays

    arrays = npz_arrays(source)
    z, p = (_numbers(source, arrays, key) for key in ("z", "p"))
    if z.shape != p.shape or z.ndim not in (axes, axes + 1) or z.size == 0:
        raise CommandError(
            f"{source}: 'z' and 'p' must have one shape, {axes} axes a sample with the samples in "
            f"front; found {z.shape} and {p.shape}."
        )
    bad = np.isnan(z) | np.isposinf(z)
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        raise CommandError(
            f"{source}: the logits must be finite, or -inf (masked); found {z[tuple(where)]} at "
            f"{where}."
        )
    return (z, p) if z.ndim > axes else (z[None], p[None])


def _numbers(source: str, arrays: Any, key: str) -> Any:
    if key not in arrays or arrays[key].dtype.kind not in "iuf":
        raise CommandError(
            f"{source}: arrays of real numbers 'z' (logits) and 'p' (candidate) are needed; the arrays "
            f"are {arrays}."
        )
    return arrays[key].astype(float)


def _rows(found: Any) -> list[dict[str, Any]]:
    import numpy as np

    parts = (
        "primal",
        "dual",
        "complementarity",
        "stationarity",
        "gap",
        "relative_gap",
        "objective",
    )
    columns = {part: np.asarray(getattr(found, part)) for part in parts}
    columns |= {"tolerance": np.asarray(found.tol), "certified": np.asarray(found.certified)}
    verdicts = np.asarray(found.verdict)
    rows = []
    for i in range(len(verdicts)):
        part, place, _ = found.offender(i)
        row = {"sample": i, "verdict": str(verdicts[i]), "worst": f"{part} at {place}"}
        rows.append(row | {key: column[i].item() for key, column in columns.items()})
    return rows


def _badness(row: dict[str, Any]) -> float:
    sizes = [abs(row[k]) for k in ("primal", "dual", "stationarity", "gap")]
    size = max(math.inf if math.isnan(s) else s for s in sizes)
    return size if row["certified"] else math.inf if math.isinf(size) else 1e300 + size


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    show = lambda key: Quantity(row[key], 3)
    return {
        "sample": row["sample"],
        "verdict": row["verdict"],
        "gap": show("gap"),
        "primal": show("primal"),
        "dual": show("dual"),
        "stationarity": show("stationarity"),
        "largest": row["worst"],
    }


CERTIFY = Command(
    "certify",
    """Certify a candidate, from any library, against a layer's convex program.

    Writes result.json. Exit code 0: every sample is certified; 1: some sample is not.
    """,
    Asked,
    run,
    page=None,
)
