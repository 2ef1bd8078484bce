"""`--help` and bad options are answered before anything heavy is imported."""

import subprocess
import sys

import pytest

HEAVY = ("jax", "numpy", "scipy", "sklearn", "matplotlib", "casadi", "cvxpy", "equinox", "jinja2")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ([], 0),
        (["--help"], 0),
        (["--version"], 0),
        (["crosscheck", "--help"], 0),
        (["doctor", "--help"], 0),
        (["crosscheck", "--depth", "0"], 2),
        (["crosscheck", "--solver", "newtn"], 2),
        (["crosscheck", "--config", "absent.toml"], 2),
    ],
    ids=str,
)
def test_nothing_heavy(line, code):
    program = (
        "import sys\nfrom hjcontrol.cli import main\n"
        f"code = main({line!r})\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == (1 if code else 0)
