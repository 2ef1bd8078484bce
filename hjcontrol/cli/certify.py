"""`hjcontrol certify`: is this candidate the answer of that layer? Whoever computed it.

The candidate comes as arrays `z` (logits) and `p` of an NPZ file, one sample or many. Each sample gets
its residuals, its gap and a verdict; nothing is solved again.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.folder import output_folder, save_json
from hjcontrol.cli.settings import magnitude
from hjcontrol.cli.terminal import Screen

REFUTED = 1
SHOWN = 12  # samples in the table; result.json has all
Text = str | None


def certify(
    candidate: Annotated[str, typer.Argument(help="CANDIDATE.npz with `z` and `p`")],
    layer: Annotated[str, typer.Option(help="see `hjcontrol layers`", metavar="NAME")],
    eps: Annotated[
        Text, typer.Option(help="temperature", show_default="the layer's own", metavar="EPS")
    ] = None,
    tolerance: Annotated[
        Text,
        typer.Option(help="of every residual and of the gap", show_default="1e-9", metavar="TOL"),
    ] = None,
    out: Annotated[
        Text, typer.Option(help="folder to write to", show_default="./certify", metavar="DIR")
    ] = None,
) -> None:
    """Certify a candidate, from any library, against a layer's convex program.

    Writes result.json. Exit code 0: every sample is certified; 1: some sample is not.
    """
    folder = Path(out or "certify")
    asked_eps = None if eps is None else magnitude("--eps", eps, above=False)
    asked_tol = None if tolerance is None else magnitude("--tolerance", tolerance, above=False)
    with output_folder(folder):
        raise typer.Exit(run(candidate, layer, asked_eps, asked_tol, folder, Screen()))


def run(
    source: str, name: str, eps: float | None, tol: float | None, folder: Path, screen: Screen
) -> int:
    """Judge every sample of the file `source` and return the exit code.

    **Raises:** `CommandError` for a file, a layer or options that cannot be used.
    """
    import jax

    jax.config.update("jax_enable_x64", True)  # the command owns its process

    from hjcontrol.layers.registry import REGISTRY, build

    if name not in REGISTRY:
        raise CommandError(f"--layer: the layers are {', '.join(REGISTRY)}; found {name!r}.")
    layer = build(name, eps)
    z, p = _samples(source, len(REGISTRY[name].shape))
    try:
        found = jax.jit(jax.vmap(lambda a, b: layer.certify(a, b, tolerance=tol)))(z, p)
    except (
        ValueError,
        TypeError,
    ) as error:  # TypeError: another number of logits than the layer has
        raise CommandError(f"{source}: {error}") from None
    rows = _rows(found)
    title = f"{name} at eps = {float(layer.eps):g}: {len(rows)} sample{'s' * (len(rows) > 1)}"
    worst = sorted(rows, key=lambda r: -_badness(r))[:SHOWN]
    screen.table(title + (", the worst first" if len(rows) > 1 else ""), [_cells(r) for r in worst])
    certified = sum(r["certified"] for r in rows)
    screen.line(f"\n{certified} of {len(rows)} certified at tolerance {rows[0]['tolerance']:.0e}")
    content = {"layer": name, "eps": float(layer.eps), "certified": certified, "samples": rows}
    screen.line(str(save_json(folder / "result.json", content)))
    return 0 if certified == len(rows) else REFUTED


def _samples(source: str, axes: int) -> tuple[Any, Any]:
    """Logits and candidates with a leading sample axis."""
    import numpy as np

    from hjcontrol.data import DataError
    from hjcontrol.data.loading import npz_arrays

    try:
        arrays = npz_arrays(source)
        pair = [_numbers(source, arrays, key) for key in ("z", "p")]
    except DataError as error:
        raise CommandError(str(error)) from None
    z, p = pair
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
    columns = {
        part: np.asarray(getattr(found, part)) for part in (*parts, "tolerance", "certified")
    }
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


def _cells(row: dict[str, Any]) -> dict[str, str]:
    show = lambda key: f"{row[key]:.2e}"
    return {
        "sample": str(row["sample"]),
        "verdict": row["verdict"],
        "gap": show("gap"),
        "relative": show("relative_gap"),
        "primal": show("primal"),
        "dual": show("dual"),
        "stationarity": show("stationarity"),
        "largest residual": row["worst"],
    }
