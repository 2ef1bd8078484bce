"""The house: what an import costs, which names exist, where third parties live, what a room says."""

import collections
import importlib
import pathlib
import pkgutil
import re
import subprocess
import sys
import types

import pytest

import hjcontrol as hj

PACKAGE = pathlib.Path(hj.__file__).parent
TESTS = pathlib.Path(__file__).parent
PACKAGES = [
    "hjcontrol",
    *(m.name for m in pkgutil.walk_packages(hj.__path__, "hjcontrol.") if m.ispkg),
]
QUESTIONS = [f"hjcontrol.analysis.{q}" for q in hj.analysis.__all__]
ROOMS = sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))
HEAVY = ["casadi", "cvxpy", "diffrax", "jaxopt", "matplotlib", "optax", "sklearn", "typer"]


def fresh(code):
    """What `code` prints in a fresh process."""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    return out.stdout


def loaded(code, *names):
    """Which of the packages `names` are loaded once `code` has run."""
    return fresh(f"{code}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])").split()


@pytest.mark.smoke
def test_import_costs_almost_nothing():
    assert loaded("import hjcontrol", "jax", "equinox", "numpy", "scipy", *HEAVY) == []


@pytest.mark.smoke
def test_stating_a_problem_pulls_jax_and_equinox_only():
    code = "import hjcontrol as hj; hj.ControlProblem; hj.Solution; hj.networks; hj.deformation"
    assert loaded(code, "jax", "equinox", *HEAVY) == ["jax", "equinox"]


def test_naming_a_room_does_not_pull_its_third_parties():
    code = (
        "import hjcontrol as hj; hj.data; hj.reporting; hj.solvers; hj.verification; hj.comparison"
    )
    assert loaded(code, "casadi", "cvxpy", "diffrax", "jaxopt", "matplotlib", "sklearn") == []


def test_import_leaves_the_precision_alone():
    code = "import jax, hjcontrol as hj; [getattr(hj, n) for n in dir(hj)]"
    assert fresh(f"{code}; print(jax.config.jax_enable_x64)").strip() == "False"


@pytest.mark.smoke
@pytest.mark.parametrize("name", hj.__all__)
def test_every_public_name_resolves(name):
    assert getattr(hj, name) is not None
    assert name in dir(hj)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hj.nothing  # noqa: B018


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_resolves(room):
    module = importlib.import_module(f"hjcontrol.{room}")
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_page(room):
    page = PACKAGE / room / "README.md"
    assert page.exists(), f"{page} is missing"
    lines = page.read_text().splitlines()
    assert 3 <= len(lines) <= 40, f"{page}: {len(lines)} lines; a room's page has at most 40"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_files_stay_small_and_open_with_what_they_are(path):
    text = path.read_text()
    lines = text.splitlines()
    assert len(lines) <= 400, f"{path}: {len(lines)} lines; over 400 wants a second noun"
    if lines:
        assert text.lstrip("r").startswith('"""'), f"{path} has no docstring"


def test_no_room_is_a_drawer():
    names = {p.stem for p in PACKAGE.rglob("*")}
    assert not names & {"utils", "helpers", "common", "core", "manager", "misc"}


@pytest.mark.parametrize("verb", ["solve", "verify", "crosscheck", "report"])
def test_a_verb_stays_callable_whatever_was_imported_before(verb):
    code = (
        "import importlib, pkgutil, hjcontrol as hj\n"
        f"first = hj.{verb}\n"
        "for room in pkgutil.iter_modules(hj.__path__):\n"
        "    importlib.import_module('hjcontrol.' + room.name)\n"
        f"print(callable(first), callable(hj.{verb}))"
    )
    assert fresh(code).split() == ["True", "True"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_a_module_of_its_package(package):
    """Importing the module would put it in the place of what the name meant."""
    package = importlib.import_module(package)
    modules = {m.name for m in pkgutil.iter_modules(package.__path__)}
    public = set(getattr(package, "__all__", ()))
    rooms = {n for n in public if isinstance(getattr(package, n), types.ModuleType)}
    assert sorted(public & modules - rooms) == []


def test_no_public_name_is_two_objects():
    found = collections.defaultdict(dict)
    for module in map(importlib.import_module, dict.fromkeys([*PACKAGES, *QUESTIONS])):
        for name in getattr(module, "__all__", ()):
            found[name].setdefault(id(getattr(module, name)), module.__name__)
    twice = {name: sorted(homes.values()) for name, homes in found.items() if len(homes) > 1}
    assert twice == {}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_shows_what_is_its_own(question):
    module = importlib.import_module(question)
    assert module.__all__
    if not hasattr(module, "__path__"):
        assert dir(module) == sorted(module.__all__)
    assert "jnp" not in module.__all__


OLD = {
    "hjcontrol.layers:solve": "hjcontrol.layers:argmax",
    "hjcontrol.hamilton_jacobi:Residual": "hjcontrol.hamilton_jacobi:EquationResidual",
    "hjcontrol.analysis.robustness:certify": "hjcontrol.analysis.robustness:certified_radius",
    "hjcontrol.verification:measure": "hjcontrol.verification.measuring:measure",
    "hjcontrol.control:inner": "hjcontrol.control.hamiltonians:inner",
    "hjcontrol:ledger": "hjcontrol.reproduction:",
}


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_warns_and_gives_what_the_new_one_gives(old):
    named = lambda module, _, name: (
        getattr(importlib.import_module(module), name) if name else importlib.import_module(module)
    )
    with pytest.warns(DeprecationWarning, match="goes with the next release") as said:
        given = named(*old.partition(":"))
    assert given is named(*OLD[old].partition(":"))
    assert OLD[old].replace(":", ".").rstrip(".") in str(said[0].message)


def test_no_test_imports_another_that_may_be_skipped_whole():
    tests = {p.stem: p.read_text(encoding="utf-8") for p in TESTS.rglob("test_*.py")}
    skipped = {n for n, text in tests.items() if re.search(r"^\S.*importorskip\(", text, re.M)}
    assert {"test_torch", "test_torch_programs"} <= skipped
    wanted = {
        n
        for text in tests.values()
        for n in re.findall(r"^from tests\.\S*\b(test_\w+) import", text, re.M)
    }
    assert wanted
    assert not wanted & skipped
