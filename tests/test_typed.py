"""What a type checker says of a user's script: nothing of ours is unknown, and mistakes are reported.

The stubs of the lazy packages are what `.ci/stubs.py` writes from their tables.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MISTAKES = {
    "seed: int = solution.solver": "reportAssignmentType",
    "solution.weight": "reportAttributeAccessIssue",
    "hj.solvers.Newtn()": "reportAttributeAccessIssue",
    "hj.solve(problem, 'newton', maxsteps=5)": "reportCallIssue",
    "hj.nonsense": "reportAttributeAccessIssue",
    "hj.analysis.temperatur": "reportAttributeAccessIssue",
    "hj.layers.Sofmax(0.5)": "reportAttributeAccessIssue",
}
STATED = """
import hjcontrol as hj

def mistakes(problem: hj.ControlProblem, solution: hj.Solution) -> None:
"""


def test_stubs_are_what_the_tables_say():
    check = [sys.executable, str(ROOT / ".ci" / "stubs.py"), "--check"]
    out = subprocess.run(check, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr


@pytest.fixture(scope="module")
def diagnostics(tmp_path_factory):
    """What the checker says in strict mode of each of two files: `(line, rule, message)` by file."""
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed; it is in the extra `dev`, which CI installs")
    folder = tmp_path_factory.mktemp("typed")
    script = (ROOT / "tests" / "typed_user.py").read_text()
    (folder / "right.py").write_text(script)
    (folder / "wrong.py").write_text(STATED + "\n".join(f"    {line}" for line in MISTAKES))
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "reportUnusedExpression": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    out = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {"right.py": [], "wrong.py": []}
    for d in json.loads(out.stdout)["generalDiagnostics"]:
        said = (d["range"]["start"]["line"], d.get("rule", ""), d["message"])
        found[pathlib.Path(d["file"]).name].append(said)
    return found


@pytest.mark.xdist_group("typed")
def test_a_users_script_meets_no_unknown_type_of_ours(diagnostics):
    said = [d for d in diagnostics["right.py"] if not d[2].startswith('Type of "jax')]
    assert said == []


@pytest.mark.xdist_group("typed")
def test_planted_mistakes_are_reported(diagnostics):
    first = STATED.count("\n")
    reported = {(line - first, rule) for line, rule, _ in diagnostics["wrong.py"]}
    assert {(i, rule) for i, rule in enumerate(MISTAKES.values())} <= reported
