"""The explorer's page: numbers equal to Python's in a real browser, tables without a script."""

import re
import shutil
import subprocess

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.analysis import extrapolation, robustness
from hjcontrol.cli import main
from hjcontrol.layers import LSE, ClassHead, LogitHead
from hjcontrol.reporting.explorer import TOLD, explorer, explorer_page

CHROMIUM = next(
    (c for c in ("chromium", "chromium-browser", "google-chrome") if shutil.which(c)), None
)
DRAW = np.random.default_rng(0)
W = DRAW.normal(size=(9, 2))
MODEL = ClassHead(
    LSE(W, -(W**2).sum(1) / 2 + 0.1 * DRAW.normal(size=9), 0.3), [0, 0, 0, 1, 1, 1, 2, 2, 2]
)
SAMPLES = DRAW.normal(size=(12, 2))


@pytest.fixture(scope="module")
def found():
    return explorer(MODEL, SAMPLES, labels=["<b>"] * 12, names=["a", "b", "c"])


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_a_reading_is_what_the_questions_answer(found, eps):
    x = jnp.asarray(SAMPLES[3])
    read = found.reading(x, eps)
    model = eqx.tree_at(lambda m: m.head.eps, MODEL, jnp.asarray(eps))
    z = np.asarray(x @ W.T) + np.asarray(MODEL.head.b)
    assert read["hard"] == pytest.approx(z.max(), abs=1e-12)
    assert read["value"] == pytest.approx(
        z.max() if eps == 0 else eps * np.logaddexp.reduce(z / eps), abs=1e-12
    )
    assert read["radius"] == pytest.approx(
        float(robustness.certified_radius(model, x).radius), abs=1e-12
    )
    assert read["gap"] == pytest.approx(np.diff(np.sort(z)[-2:])[0], abs=1e-12)
    energy = extrapolation.coverage_of_samples(SAMPLES, found.width).energy(x)
    assert read["score"] == pytest.approx(float(energy), abs=1e-12)
    assert np.isnan(read["curvature"]) == (eps == 0)


def test_the_page_stands_alone_and_has_its_tables_without_a_script(found):
    page = explorer_page(found)
    assert len(page) < 3e6
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    table = page.split('<details id="tables" open>')[1].split("</details>")[0]
    assert table.count("<tr>") == 1 + 6 * 5
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<noscript>" in page


def in_browser(path, hash_):
    """Exact numbers by name, of the page opened at that link."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000",
        f"--user-data-dir={path.parent / 'profile'}", "--dump-dom", f"{path.resolve().as_uri()}#{hash_}",
    ]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return dict(re.findall(r'id="(\w+)" data-exact="([^"]*)"', text))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("slider", [0, 120, 300])
def test_the_slider_moved_in_a_browser_reads_python_s_numbers(found, tmp_path, slider):
    path = tmp_path / "explore.html"
    path.write_text(explorer_page(found), encoding="utf-8")
    told = in_browser(path, f"sample=4&slider={slider}")
    eps = 0.0 if slider == 0 else 0.3 * 10 ** (-3 + slider / 100)
    read = found.reading(SAMPLES[4], eps)
    for name in TOLD:
        ours, theirs = read[name], float(told[name])
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6, nan_ok=True), name
    assert abs(float(told["value"]) * 1.01 - read["value"]) > 1e-6  # the twin


def test_the_command_writes_a_page_from_a_file_and_refuses_what_it_cannot_read(tmp_path, capsys):
    np.savez(tmp_path / "m.npz", W=W, b=MODEL.head.b, eps=0.3, classes=np.asarray(MODEL.classes))
    out = tmp_path / "out"
    assert main(["explore", str(tmp_path / "m.npz"), "--out", str(out)]) == 0
    assert "application/json" in (out / "explore.html").read_text(encoding="utf-8")
    assert main(["explore", str(tmp_path / "m.npz"), "--data", "iris", "--out", str(out)]) == 2
    assert "`samples` of shape (n, 2) are needed; found (150, 4)" in capsys.readouterr().err
    assert main(["explore", "nothing", "--out", str(out)]) == 2
    assert "FILE.npz, or MODULE:OBJECT" in capsys.readouterr().err


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: explorer(LogitHead(jax.nn.relu, 1.0)), "affine layers: give the last layer"),
        (lambda: explorer(MODEL, SAMPLES[:, :1]), r"shape \(n, 2\)"),
        (lambda: explorer(MODEL, SAMPLES * np.nan), "24 entries are not"),
        (lambda: explorer(MODEL, SAMPLES, labels=["a"]), "a label for each of 12"),
        (lambda: explorer(MODEL, np.zeros((200_000, 2))), "Give fewer samples"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
