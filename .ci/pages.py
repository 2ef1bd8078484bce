"""Build the documentation site and check what was built.

    .ci/pages.py [SITE]      SITE: the folder to write, ./site

The gallery must be there: `.ci/gallery.py` runs the examples and writes it. The build is strict. Then
every page is read: each public name has one anchor, no formula is left between dollar signs, no text in
braces is taken for attributes, nothing is fetched from another server, and every option of every command
is listed.
"""

import html.parser
import importlib
import os
import pathlib
import re
import subprocess
import sys

import reference

ROOT = pathlib.Path(__file__).resolve().parent.parent
FETCHED = re.compile(r"""(?:src|srcset|@import|url\()\s*=?\s*["']?(https?:)?//""")
LOADED = re.compile(r"""<link[^>]+href=["']?https?://""")
ROOMS = ["hjcontrol", *(room for room in reference.PAGE_OF)]


class Page(html.parser.HTMLParser):
    """Anchors of a page, and its text outside of code and formulas."""

    SILENT = ("code", "pre", "script", "style", "svg")

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.ids: list[str] = []
        self.text: list[str] = []
        self.lost: list[str] = []  # text that became attributes
        self.open: list[tuple[str, bool]] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the anchor, and whether what follows is to be read."""
        given = dict(attrs)
        self.lost += [name for name in given if not name[0].isalpha()]
        self.ids += [given["id"]] if given.get("id") else []
        silent = tag in self.SILENT or "arithmatex" in (given.get("class") or "").split()
        if tag not in ("br", "img", "meta", "link", "input", "hr", "col", "wbr", "source"):
            self.open.append((tag, silent))

    def handle_endtag(self, tag: str) -> None:
        """Close the newest element of that name."""
        for at in range(len(self.open) - 1, -1, -1):
            if self.open[at][0] == tag:
                del self.open[at:]
                return

    def handle_data(self, data: str) -> None:
        """Keep text that a reader sees as prose."""
        if not any(silent for _, silent in self.open):
            self.text.append(data)


def faults(site: pathlib.Path) -> list[str]:
    """What is wrong with the built site."""
    found, anchors = [], []
    for path in sorted(site.rglob("*.html")):
        name, page, source = path.relative_to(site), Page(path), path.read_text()
        anchors += page.ids
        prose = " ".join(page.text)
        at = prose.find("$")
        if at >= 0:
            found.append(f"{name}: a dollar sign in the text: {prose[max(0, at - 40) : at + 40]!r}")
        if page.lost:
            found.append(f"{name}: text in braces became attributes: {' '.join(page.lost)}")
        if FETCHED.search(source) or LOADED.search(source):
            found.append(f"{name}: fetches from another server")
    for path in sorted(site.rglob("*.css")):
        if FETCHED.search(path.read_text()):
            found.append(f"{path.relative_to(site)}: fetches from another server")
    for room in ROOMS:
        for name in getattr(importlib.import_module(room), "__all__", ()):
            count = anchors.count(f"{room}.{name}")
            if count != 1:
                found.append(f"{room}.{name} has {count} anchors in the reference")
    listed = (site / "reference" / "commands.html").read_text()
    for command, options in reference.options().items():
        missing = [o for o in options if f"<code>{o}</code>" not in listed]
        if missing or f'id="hjcontrol-{command}"' not in listed:
            found.append(f"hjcontrol {command}: not listed: {missing}")
    names = sum(len(getattr(importlib.import_module(r), "__all__", ())) for r in ROOMS)
    pages = len(list(site.rglob("*.html")))
    print(f"site: {pages} pages, {names} public names, {len(anchors)} anchors, {len(found)} faults")
    return found


def build(site: pathlib.Path) -> None:
    """The strict build, the reference first."""
    if not (ROOT / "docs" / "gallery" / "index.md").exists():
        sys.exit("The gallery is not there: run .ci/gallery.py (or with --without-running) first.")
    reference.write(ROOT / "docs" / "reference")
    asked = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # the theme's announcement of its successor
    subprocess.run([*asked, "--site-dir", str(site)], cwd=ROOT, env=env, check=True)


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1] if sys.argv[1:] else ROOT / "site").resolve()
    build(target)
    wrong = faults(target)
    if wrong:
        sys.exit("\n".join(wrong))
