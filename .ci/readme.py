"""The README and the pages of the documentation as tests.

    .ci/readme.py                      run each python block of the README; compare what it prints with
                                       the text block below
    .ci/readme.py --docs [PAGE ...]    the same for pages of docs/, one process for each page: its blocks
                                       share their names
    .ci/readme.py --write [--docs ..]  the same, and write what was printed into the pages
    .ci/readme.py --command NAME       print the README's shell line marked `<!-- command: NAME -->`

Text must be equal. Numbers must agree to three digits; below 1e-8 all are alike (roundoff), and on a
line about seconds or steps they are not compared. A block that cannot run by itself is fenced as
```{ .python .fragment }, and is not run.
"""

import concurrent.futures
import math
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MADE = ("gallery", "reference")  # pages that other scripts write
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL | re.MULTILINE)
FREE = re.compile(r"\b(seconds|steps)\b")
TINY = 1e-8
BETWEEN = "\x1e"  # printed between the blocks of a page


class WrongPageError(Exception):
    """A block failed, or printed something else than the page says."""


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
    """What the code prints in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder, "example.py")  # a file has lines that a message can name
        script.write_text(code)
        asked = [sys.executable, str(script)]
        out = subprocess.run(asked, text=True, capture_output=True, check=False, cwd=folder)
    if out.returncode:
        raise WrongPageError(f"a block failed.\n{out.stdout}\n{out.stderr}")
    return out.stdout


def outputs(path: pathlib.Path, blocks: list[str]) -> list[str]:
    """What each block prints: the README's alone, those of another page one after the other."""
    if path == README:
        return [printed(block) for block in blocks]
    return printed(f"print({BETWEEN!r}, end='')\n".join(blocks)).split(BETWEEN)


def check(path: pathlib.Path, write: bool) -> int:
    """Run every python block of the page; how many there are.

    **Raises:** `WrongPageError`.
    """
    text = path.read_text()
    blocks = list(BLOCK.finditer(text))
    if not blocks:
        return 0
    shown = outputs(path, [block[1] for block in blocks])
    for block, have in reversed(list(zip(blocks, shown, strict=True))):
        if block[2] is None:
            continue
        if write:
            text = text[: block.start(2)] + have + text[block.end(2) :]
            continue
        wants, haves = block[2].splitlines(), have.splitlines()
        if len(wants) != len(haves) or not all(map(same_line, wants, haves)):
            raise WrongPageError(f"printed\n{have}\nbut the page says\n{block[2]}")
    if write:
        path.write_text(text)
    return len(blocks)


def pages(asked: list[str]) -> list[pathlib.Path]:
    """The pages of docs that hold code, or those that are asked for."""
    folder = ROOT / "docs"
    found = (p for p in sorted(folder.rglob("*.md")) if p.relative_to(folder).parts[0] not in MADE)
    return [pathlib.Path(a).resolve() for a in asked] or list(found)


def check_all(paths: list[pathlib.Path], write: bool) -> None:
    """Check the pages, two at a time."""
    wrong, count = [], 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for path, work in [(path, pool.submit(check, path, write)) for path in paths]:
            try:
                count += work.result()
            except WrongPageError as error:
                wrong.append(f"{path.relative_to(ROOT)}: {error}")
    if wrong:
        sys.exit("\n\n".join(wrong))
    if not count:
        sys.exit("no python block found.")
    print(f"{count} block(s) run, output as printed.")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--command", name]:
            print(command(name))
        case ["--write", "--docs", *asked]:
            check_all(pages(asked), write=True)
        case ["--docs", *asked]:
            check_all(pages(asked), write=False)
        case ["--write"] | []:
            check_all([README], write=sys.argv[1:] == ["--write"])
        case _:
            sys.exit(__doc__)
