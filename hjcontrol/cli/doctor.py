"""`hjcontrol doctor`: what is installed here, what works, and what to do about the rest."""

import dataclasses
import importlib.metadata
import platform
import re
from collections.abc import Iterator
from pathlib import Path

from hjcontrol._ground.record import Record
from hjcontrol.cli.command import Answer, Command
from hjcontrol.cli.schema import folder
from hjcontrol.cli.terminal import Screen

OK, MISSING = "ok", "missing"

Check = tuple[str, str, str, str]  # item, state, what was found, remedy


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `doctor` is to do."""

    out: Path = folder("doctor")


def run(asked: Asked, screen: Screen) -> Iterator[Answer]:
    """Check everything."""
    del asked, screen
    checks: list[Check] = []
    for part in (_versions, _devices, _casadi_backends, _cvxpy_solvers):
        try:
            checks.extend(part())
        except Exception as error:  # a broken installation is what this command is for
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            checks.append((part.__name__.strip("_"), MISSING, words, "reinstall hjcontrol"))
    rows = [dict(zip(("item", "state", "found", "remedy"), c, strict=True)) for c in checks]
    missing = [row["item"] for row in rows if row["state"] != OK]

    content = [row | {"remedy": row["remedy"] or None} for row in rows]
    remedies = [f"{r['item']} is missing: {r['remedy']}" for r in rows if r["state"] != OK]
    record = Record(
        "Doctor",
        f"{len(rows) - len(missing)} of {len(rows)} checks are ok",
        verdict="incomplete" if missing else "ok",
        tone="partial" if missing else "good",
        facts={row["item"]: row["found"] for row in rows},
        notes=remedies,
    )
    yield Answer({"checks": content, "missing": missing}, lambda: record)


def _versions() -> Iterator[Check]:
    yield "python", OK, platform.python_version(), ""
    try:
        yield "hjcontrol", OK, importlib.metadata.version("hjcontrol"), ""
        requirements = importlib.metadata.requires("hjcontrol") or []
    except importlib.metadata.PackageNotFoundError:
        yield "hjcontrol", MISSING, "not installed as a package", "pip install hjcontrol"
        return
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0]
        try:
            yield name, OK, importlib.metadata.version(name), ""
        except importlib.metadata.PackageNotFoundError:
            yield name, MISSING, "not installed", f"pip install '{requirement}'"


def _devices() -> Iterator[Check]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    devices = ", ".join(f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices())
    yield "devices", OK, devices, ""
    gap = float(jnp.asarray(1.0) + jnp.asarray(1e-12) - 1.0)
    works = abs(gap - 1e-12) < 1e-15
    yield (
        "float64",
        OK if works else MISSING,
        "works" if works else "rounded to 32 bits",
        "" if works else "use a device with 64-bit floats: JAX_PLATFORMS=cpu",
    )


def _casadi_backends() -> Iterator[Check]:
    from hjcontrol.solvers.direct import loadable_backends, refused_plugins

    loads = [name for name, loads in loadable_backends().items() if loads is True]
    refused = refused_plugins() if "ipopt" in loads else {}
    found = [name for name in loads if name not in refused]
    yield (
        "casadi nlpsol",
        OK if "ipopt" in found else MISSING,
        ", ".join(found) or "no plugin loads",
        "" if "ipopt" in found else "pip install --force-reinstall casadi (its wheel brings ipopt)",
    )
    for name, why in refused.items():
        yield f"casadi {name}", OK, f"loads, and is not offered: {why}", ""


def _cvxpy_solvers() -> Iterator[Check]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about optional solvers that are not installed
        import cvxpy

        found = cvxpy.installed_solvers()
    yield (
        "cvxpy solvers",
        OK if "CLARABEL" in found else MISSING,
        ", ".join(found) or "none",
        "" if "CLARABEL" in found else "pip install clarabel",
    )


DOCTOR = Command(
    "doctor",
    """Say what is installed, which devices and solver plugins work, and how to mend the rest.

    Writes result.json.
    """,
    Asked,
    run,
    page=None,
    doubles=False,  # JAX itself may be what is broken
)
