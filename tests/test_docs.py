"""The documentation: rooms list their files, names have an anchor, top names an example."""

import importlib
import importlib.util
import inspect
import pathlib
import re

import pytest

import hjcontrol as hj

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = ROOT / ".ci"
TOP = [
    "ControlProblem",
    "solve",
    "solvers.select",
    "Solution",
    "RESULTS",
    "solvers.Newton",
    "solvers.Gradient",
    "solvers.Riccati",
    "solvers.MSA",
    "solvers.Shooting",
    "solvers.Direct",
    "networks.Dense",
    "networks.Residual",
    "networks.Flow",
    "networks.Tied",
    "networks.lift",
    "networks.readout",
    "control.Ridge",
    "control.Smoothing",
    "control.Box",
    "control.softmax_cross_entropy",
    "control.least_squares",
    "report",
    "verify",
    "Certificate",
    "crosscheck",
    "Comparison",
    "adjoint_ladder",
    "deformation.LSE",
    "layers.Softmax",
    "layers.Sparsemax",
    "layers.SoftThreshold",
    "layers.ProgramLayer",
    "layers.ClassHead",
    "certify",
    "layers.Optimality",
    "compare_gradients",
    "faces",
    "data.load",
    "data.split",
]
pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason="needs the checkout's scripts")


def script(name):
    """A script of `.ci` as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_room_pages_list_the_files_that_are_there():
    assert script("rooms").stale(write=False) == [], "run .ci/rooms.py"


def test_every_public_name_has_one_anchor_in_the_reference(tmp_path):
    reference = script("reference")
    reference.write(tmp_path)
    text = "\n".join(page.read_text() for page in sorted(tmp_path.glob("*.md")))
    anchors = re.findall(r'(?:id="|\{#)([\w.]+)["}]|^::: ([\w.]+)', text, re.MULTILINE)
    anchors = [a or b for a, b in anchors]
    for room in ["hjcontrol", *reference.PAGE_OF]:
        for name in getattr(importlib.import_module(room), "__all__", ()):
            assert anchors.count(f"{room}.{name}") == 1, f"{room}.{name}"


def test_every_option_of_every_command_is_listed():
    reference = script("reference")
    page = reference.commands()
    for command, options in reference.options().items():
        assert f"## {command} " in page
        assert all(f"`{option}`" in page for option in options), command


def test_every_result_says_what_to_do():
    page = script("reference").results()
    for name in script("reference").result_names():
        assert re.search(rf"^\| `{name}` \| \w.*\. \|$", page, re.MULTILINE), name


@pytest.mark.parametrize("name", TOP)
def test_the_top_names_have_an_example(name):
    thing = hj
    for part in name.split("."):
        thing = getattr(thing, part)
    thing = getattr(thing, name.split(".")[-1], thing) if inspect.ismodule(thing) else thing
    assert ">>> " in inspect.getdoc(thing)


def test_every_example_has_a_page_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"gallery/{path.stem}.md" in nav


def test_files_that_the_page_on_extending_names_exist():
    page = (ROOT / "docs" / "extending.md").read_text()
    named = re.findall(r"`(?:hjcontrol/)?([a-z_]+/[a-z_/]*(?:\.py)?)`", page)
    assert len(named) > 10
    for path in named:
        found = [*ROOT.glob(f"hjcontrol/{path}"), *ROOT.glob(f"hjcontrol/*/{path}")]
        assert found, f"docs/extending.md names {path}, which does not exist"
