"""`hjcontrol doctor`: what is installed here, what works, and what to do about the rest."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from typing import Annotated

import typer

from hjcontrol.cli.folder import output_folder, save_json
from hjcontrol.cli.settings import settings
from hjcontrol.cli.terminal import Screen

OK, MISSING = "ok", "missing"

Check = tuple[str, str, str, str]  # item, state, what was found, remedy


def doctor(
    out: Annotated[
        str | None,
        typer.Option(help="folder to write to", show_default="./doctor", metavar="DIR"),
    ] = None,
) -> None:
    """Say what is installed, which devices and solver plugins work, and how to mend the rest."""
    folder = settings({"out": out or "doctor"}).out
    with output_folder(folder):
        run(folder, Screen())


def run(folder: os.PathLike, screen: Screen) -> None:
    """Check everything, show a table, write `result.json` into `folder`."""
    from pathlib import Path

    checks: list[Check] = []
    for part in (_versions, _devices, _casadi_plugins, _cvxpy_solvers):
        try:
            checks.extend(part())
        except Exception as error:  # a broken installation is what this command is for
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            checks.append((part.__name__.strip("_"), MISSING, words, "reinstall hjcontrol"))
    screen.table(
        "Doctor",
        [
            {"item": item, "state": state, "found": found, "remedy": remedy}
            for item, state, found, remedy in checks
        ],
        words=True,
    )
    missing = [item for item, state, _, _ in checks if state != OK]
    screen.line(f"\n{len(checks) - len(missing)} of {len(checks)} checks are ok")
    content = {
        "checks": [
            {"item": item, "state": state, "found": found, "remedy": remedy or None}
            for item, state, found, remedy in checks
        ],
        "missing": missing,
    }
    screen.line(str(save_json(Path(folder) / "result.json", content)))


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


def _casadi_plugins() -> Iterator[Check]:
    from hjcontrol.solvers.direct import loadable_plugins, refused_plugins

    loads = [name for name, loads in loadable_plugins().items() if loads is True]
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
