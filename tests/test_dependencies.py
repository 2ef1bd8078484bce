"""What runs without which package, and what is said where one is missing.

`import hjcontrol`, `hj.verify` and `hj.solve(problem, "newton")` need JAX, equinox and optax alone, with
what these bring. Everything else names the package and the command that installs it.
"""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
OWN = {"jax", "equinox", "optax", "jaxtyping", "numpy", "scipy"}  # with what JAX and equinox bring
IMPORTED = {"scikit-learn": "sklearn"}

STATED = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())

import jax, jax.numpy as jnp
import hjcontrol as hj

jax.config.update("jax_enable_x64", True)
x, y = jax.random.normal(jax.random.key(0), (6, 2)), jnp.array([0, 1, 0, 1, 0, 1])
problem = hj.ControlProblem(
    [hj.readout(2, 2)], x, y, terminal=hj.softmax_cross_entropy, running=hj.Ridge(0.1)
)
"""
SOLVED = """
certificate = hj.verify(lambda v: jnp.sum(jnp.tanh(v) ** 2), x)
solution = hj.solve(problem, "newton", key=jax.random.key(1), max_steps=30)
assert certificate and solution.result == hj.RESULTS.successful, solution
"""
SELECTED = """
chosen = hj.select(problem)
assert chosen.name == "newton"
assert "casadi" not in sys.modules
print(chosen.others["direct"])
"""
BORDERS = {
    "casadi": 'hj.solve(problem, "direct", key=jax.random.key(1))',
    "matplotlib": 'hj.plots.convergence({"newton": solution}, "objective")',
    "scikit-learn": 'hj.load("iris")',
    "diffrax": "hj.Flow(hj.Dense(3, 3), 1.0)",
    "cvxpy": "hj.Softmax(0.5).as_cvxpy(x[0])",
    "jaxopt": 'hj.layers.argmax(hj.Softmax(0.5), x[0], "jaxopt")',
    "typer": "import hjcontrol.cli",
    "rich": "sys.modules.pop('hjcontrol.cli', None); import hjcontrol.cli",
    "threadpoolctl": "hj.convex.HopfCole(x, x[:, 0], x, 0.1).solve()",
}
ASKED = """
for name, code in BORDERS.items():
    BLOCKED.clear(), BLOCKED.add(IMPORTED.get(name, name))
    try:
        exec(code)
    except ImportError as error:
        print(f"{name}: {error}")
    else:
        print(f"{name}: nothing was missing")
"""


def declared():
    """Every package that the project asks for, as Python calls it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]]
    return {IMPORTED.get(n, n) for n in names}


def run(code, folder):
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder
    )
    assert out.returncode == 0, out.stderr
    return out.stdout


@pytest.mark.smoke
def test_the_core_runs_on_three_packages_and_every_border_says_what_it_needs(tmp_path):
    others = declared() - OWN
    code = f"BLOCKED, BORDERS, IMPORTED = {others!r}, {BORDERS!r}, {IMPORTED!r}\n"
    said = run(code + STATED + SOLVED + SELECTED + ASKED, tmp_path).splitlines()
    assert said[0] == "casadi is not installed."
    for name, line in zip(BORDERS, said[1:], strict=True):
        assert line.startswith(f"{name}: "), line
        assert line.endswith(f" needs {name}, which is not installed. Run: pip install {name}"), (
            line
        )


def test_selecting_a_solver_does_not_load_the_others_packages(tmp_path):
    said = run("BLOCKED = set()\n" + STATED + SELECTED, tmp_path)
    assert said.strip() == "able"


def test_no_package_is_declared_that_nothing_imports():
    text = "\n".join(p.read_text() for p in (ROOT / "hjcontrol").rglob("*.py"))
    unused = {n for n in declared() if not re.search(rf"(?:import|from) {n}\b", text)}
    assert unused == set()


NAMED = """
import importlib, pkgutil, jax, hjcontrol as hj

for name in dir(hj):
    getattr(hj, name)
for room in pkgutil.iter_modules(hj.__path__):
    module = importlib.import_module(f"hjcontrol.{room.name}")
    for name in dir(module):
        getattr(module, name)
"""
CHOSEN = """
jax.config.update("jax_num_cpu_devices", 3)
print(jax.device_count())
"""


def test_names_leave_devices_to_be_chosen(tmp_path):
    """`jax.distributed.initialize` and the number of devices come after all imports, before any array."""
    assert run(NAMED + CHOSEN, tmp_path).split()[-1] == "3"
    with pytest.raises(AssertionError, match="before"):  # the twin
        run("import jax, jax.numpy as jnp\njnp.ones(2)\n" + CHOSEN, tmp_path)
