"""The README as a test.

    .ci/readme.py                run each python block; compare what it prints with the text block below
    .ci/readme.py --write        the same, and write what was printed into the README
    .ci/readme.py --command NAME print the shell line marked `<!-- command: NAME -->`

Text must be equal. Numbers must agree to three digits; below 1e-8 all are alike (roundoff), and on a
line about seconds or steps they are not compared.
"""

import math
import pathlib
import re
import subprocess
import sys
import tempfile

README = pathlib.Path(__file__).parent.parent / "README.md"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
FREE = re.compile(r"\b(seconds|steps)\b")
TINY = 1e-8


def command(name: str) -> str:
    """The shell line under the marker `name`."""
    marked = rf"<!-- command: {re.escape(name)} -->\n```sh\n(.*?)\n```"
    found = re.search(marked, README.read_text(), re.DOTALL)
    if found is None:
        sys.exit(f"README: no command is marked {name!r}.")
    return found[1]


def alike(a: str, b: str) -> bool:
    """Whether two numbers, as printed, count as the same."""
    x, y = float(a), float(b)
    return (abs(x) < TINY and abs(y) < TINY) or math.isclose(x, y, rel_tol=2e-3)


def same_line(want: str, have: str) -> bool:
    """Whether two lines of output count as the same."""
    words = [" ".join(NUMBER.sub("#", line).split()) for line in (want, have)]
    if words[0] != words[1]:
        return False
    if FREE.search(want):
        return True
    return all(map(alike, NUMBER.findall(want), NUMBER.findall(have)))


def printed(code: str) -> str:
    """What a block prints in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder, "example.py")  # a file has lines that a message can name
        script.write_text(code)
        asked = [sys.executable, str(script)]
        out = subprocess.run(asked, text=True, capture_output=True, check=False)
    if out.returncode:
        sys.exit(f"README: a block failed.\n{code}\n{out.stderr}")
    return out.stdout


def check(write: bool) -> None:
    """Run every python block of the README."""
    text = README.read_text()
    blocks = list(BLOCK.finditer(text))
    if not blocks:
        sys.exit("README: no python block found.")
    for block in reversed(blocks):
        have = printed(block[1])
        if block[2] is None:
            continue
        if write:
            text = text[: block.start(2)] + have + text[block.end(2) :]
            continue
        wants, haves = block[2].splitlines(), have.splitlines()
        if len(wants) != len(haves) or not all(map(same_line, wants, haves)):
            sys.exit(f"README: printed\n{have}\nbut the page says\n{block[2]}")
    if write:
        README.write_text(text)
    print(f"README: {len(blocks)} block(s) run, output as printed.")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--command", name]:
            print(command(name))
        case ["--write"] | []:
            check(write=sys.argv[1:] == ["--write"])
        case _:
            sys.exit(__doc__)
