"""Run every example and write a page of each: what it says, its pictures, its output, its code.

    .ci/gallery.py [--jobs N] [--without-running] [FOLDER]       FOLDER: docs/gallery

An example runs in a folder of its own; the pictures that it writes there go on its page. With
`--without-running` pages hold no output and no pictures, which is enough to check links. Exit code 1 if
an example fails.
"""

import argparse
import ast
import concurrent.futures
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURES = (".png", ".svg", ".gif")


WRITES = re.compile(
    r"\s*(?:Writes|Writes the picture to)\s[\w\s.]*?\.(?:png|svg|gif|dot)\.(?:\s|$)"
)


def title(text: str) -> str:
    """The first sentence of the docstring, up to its first stop."""
    found = re.match(r"(.*?)(\?|[.;:](?=\s|$))", " ".join(text.split("\n\n")[0].split()))
    return (found[1] + found[2].strip(".;:") if found else text).strip()


def run(script: pathlib.Path, folder: pathlib.Path) -> tuple[int, str, list[pathlib.Path], float]:
    """Run the script; its exit code, what it printed, its pictures (moved to `folder`), seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        asked = [sys.executable, str(script)]
        env = {"MPLBACKEND": "Agg", **os.environ}
        kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(asked, cwd=scratch, env=env, check=False, **kept)
        took = time.monotonic() - began
        found = sorted(p for p in pathlib.Path(scratch).iterdir() if p.suffix in PICTURES)
        pictures = [pathlib.Path(shutil.copy(p, folder)) for p in found]
    return done.returncode, done.stdout, pictures, took


def page(script: pathlib.Path, printed: str, pictures: list[pathlib.Path]) -> str:
    """The Markdown of one example."""
    source = script.read_text()
    says = ast.get_docstring(ast.parse(source)) or script.stem
    head = title(says)
    first, _, rest = says.partition("\n\n")
    first = WRITES.sub("", " ".join(first.split())).removeprefix(head).lstrip(".;: ")
    rest = WRITES.sub("", rest)
    first = first[:1].upper() + first[1:]
    code = source[source.index('"""', 3) + 3 :].strip()
    shown = [f"![{head}]({p.name})\n" for p in pictures]
    output = f"## Output\n\n```text\n{printed.strip()}\n```\n" if printed.strip() else ""
    shown_code = f"## Code\n\n`examples/{script.name}`\n\n```python\n{code}\n```\n"
    return "\n".join([f"# {head}\n", f"{first}\n", f"{rest}\n", *shown, output, shown_code])


def write(folder: pathlib.Path, jobs: int, running: bool) -> int:
    """All pages and the index; the number of examples that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    scripts = sorted((ROOT / "examples").glob("*.py"))
    failed, rows = 0, []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        skipped = (0, "", [], 0.0)
        outcomes = pool.map(lambda s: run(s, folder) if running else skipped, scripts)
        for script, (code, printed, pictures, took) in zip(scripts, outcomes, strict=True):
            print(
                f"-- {script.name}: {took:.0f} s\n{printed}" if running else script.name, flush=True
            )
            failed += code != 0
            (folder / f"{script.stem}.md").write_text(page(script, printed, pictures))
            picture = f"![]({pictures[0].name}){{ width=220 }}" if pictures else ""
            head = title(ast.get_docstring(ast.parse(script.read_text())) or script.stem)
            rows.append(f"| [{head}]({script.stem}.md) | {picture} |")
    start = (
        "# Gallery\n\nEvery script of `examples/`, run when this site was made, with what it printed "
        "and drew.\n\n| example | picture |\n|---|---|\n"
    )
    (folder / "index.md").write_text(start + "\n".join(rows) + "\n")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"gallery: {len(scripts)} examples, {used.ru_utime + used.ru_stime:.0f} s of processor time"
    )
    if failed:
        print(f"gallery: {failed} of {len(scripts)} examples failed", file=sys.stderr)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=ROOT / "docs" / "gallery")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--without-running", action="store_true")
    asked = parser.parse_args()
    sys.exit(bool(write(asked.folder, asked.jobs, not asked.without_running)))
