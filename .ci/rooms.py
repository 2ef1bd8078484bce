"""The list of files on each room's page, made from the first lines of their docstrings.

    .ci/rooms.py [--check]      write the lists; with --check, only say which page is stale (exit code 1)

A page `hjcontrol/ROOM/README.md` holds its files between the two markers; a room without markers keeps no
list. A file is described by the first sentence of its docstring, cut at its first colon if enough stands
before it. Where one line for each file would make the page too long, a line holds several.
"""

import ast
import pathlib
import re
import sys

ROOMS = pathlib.Path(__file__).resolve().parent.parent / "hjcontrol"
ENOUGH = 4  # words that say what a file holds
LONGEST = 40  # lines of a room's page
BEGIN, END = "<!-- files: .ci/rooms.py -->", "<!-- end of files -->"
LIST = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)


def says(path: pathlib.Path) -> str:
    """The first sentence of a file's docstring, on one line; without what follows a colon, unless that is
    what says something."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    sentence = re.split(r"[.;](?:\s|$)", " ".join(text.split("\n\n")[0].split()))[0]
    head, colon, _ = sentence.partition(": ")
    return head if colon and len(head.split()) >= ENOUGH else sentence.rstrip(":")


def listed(room: pathlib.Path, free: int) -> str:
    """The list of a room in at most `free` lines, markers included."""
    files = [p for p in sorted(room.glob("*.py")) if p.name != "__init__.py"]
    packages = sorted(p.parent for p in room.glob("*/__init__.py"))
    pairs = [(p.name, says(p)) for p in files]
    pairs += [(f"{p.name}/", says(p / "__init__.py")) for p in packages]
    lines = [f"- `{name}`: {text}" for name, text in pairs]
    width = 1
    while len(lines) + 2 > free and width < 4:
        width += 1
        cells = [f"| `{name}` | {text.replace('|', chr(92) + '|')} " for name, text in pairs]
        rows = ["".join(cells[i : i + width]) + "|" for i in range(0, len(cells), width)]
        lines = ["| file | holds " * width + "|", "|---|---" * width + "|", *rows]
    return "\n".join([BEGIN, *lines, END])


def stale(write: bool) -> list[str]:
    """Rooms whose page does not list what is there; written anew if asked."""
    found = []
    for page in sorted(ROOMS.glob("*/README.md")):
        text = page.read_text()
        found_list = LIST.search(text)
        if found_list is None:
            continue
        free = LONGEST - len(LIST.sub("", text).splitlines()) + 1
        new = text.replace(found_list[0], listed(page.parent, free))
        if new != text:
            found.append(page.parent.name)
            if write:
                page.write_text(new)
    return found


if __name__ == "__main__":
    check = sys.argv[1:] == ["--check"]
    rooms = stale(write=not check)
    if check and rooms:
        sys.exit(f"Stale pages: {', '.join(rooms)}. Run .ci/rooms.py.")
    print(f"rooms: {', '.join(rooms) or 'nothing to do'}")
