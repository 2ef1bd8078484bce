"""Packages that only a part of the library needs: what is missing is one line that says what to install.

    needs("Direct", "casadi")
    import casadi as ca

`import hjcontrol`, `hj.verify` and `hj.solve(problem, "newton")` need JAX, equinox and optax alone.
"""

import importlib
import importlib.util

SOLD_AS = {"skdim": "scikit-dimension", "sklearn": "scikit-learn"}  # where pip calls it otherwise


class MissingPackageError(ModuleNotFoundError):
    """A third-party package is not installed. The message names it, and the command that installs it."""


def needs(who: str, *packages: str) -> None:
    """Import the packages, of which `who` uses the parts that follow.

    **Raises:** `MissingPackageError` for the first that is not installed.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:  # it is there, and lacks something itself
                raise
            sold = SOLD_AS.get(package, package)
            raise MissingPackageError(
                f"{who} needs {sold}, which is not installed. Run: pip install {sold}", name=package
            ) from None


def installed(package: str) -> bool:
    """Whether a package can be imported; the package is not imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):
        return False
