"""Warn about sentences that make a reader guess. Rule: subject, verb, object; the thing is named.

    .ci/sentences.py [--count] [PATH ...]      PATH: files; else all pages and modules

Ten patterns, each with the form to prefer. A hit is a warning, not an error: the exit code is always 0.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATTERNS = {
    r"\b[Ww]hoever\b": "name the person or the part that is meant",
    r"\b[Nn]obody\b": "state the condition under which it does not happen",
    r"\b(?:says?|knows?|proves?) nothing\b|\bnothing that\b": "say what is the case",
    r"\bone an? (?:stage|run|sample|leaf|file|step|class|layer|line|row|name)\b": "one per ..",
    r"(?:^|[.;] )(?:It|They) (?:is|are|has|have|says?|does|do|holds?)\b": "name the subject again",
    r"\b(?:solver|method|route|layer|program)s? (?:trusts?|believes?|minds?)\b": "no persons",
    r"(?:^|[.;:] )[Oo]f (?:these|those|them|it|which), ": "begin with the subject",
    r"\b(?:in vain|at (?:its|his|their) word|on trial|falls? silent|to read)\b": "say what happens",
    r"\bwhat is (?:lacking|found|beyond|left|not)\b": "name the thing",
    r"\bis theirs\b|\bis its own\b|\bas it must be\b": "say whose, or why",
}
MADE = ("docs/gallery", "docs/reference", "docs/claims.md", "docs/assets")
COMPILED = {re.compile(pattern): advice for pattern, advice in PATTERNS.items()}


def prose(path: pathlib.Path) -> list[tuple[int, str]]:
    """Numbered lines that a person reads: of a page all but code, of a module docstrings and comments."""
    kept, inside = [], False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if path.suffix == ".md":
            inside ^= line.startswith("```")
            kept += [] if inside else [(number, line)]
            continue
        quotes = line.count('"""')
        if inside or quotes or "# " in line:
            kept.append((number, line if inside or quotes else line[line.index("# ") :]))
        inside ^= quotes % 2 == 1
    return kept


def hits(path: pathlib.Path) -> list[str]:
    """What to look at in the file."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {found[0].strip()!r}: {advice}"
        for number, line in prose(path)
        for pattern, advice in COMPILED.items()
        for found in pattern.finditer(line)
    ]


def files() -> list[pathlib.Path]:
    """All pages and modules that a user meets."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("hjcontrol/*/README.md")]
    pages = [p for p in pages if not str(p.relative_to(ROOT)).startswith(MADE)]
    return [*sorted(pages), *sorted((ROOT / "hjcontrol").rglob("*.py"))]


if __name__ == "__main__":
    asked = [a for a in sys.argv[1:] if a != "--count"]
    found = [
        hit
        for path in ([pathlib.Path(a).resolve() for a in asked] or files())
        for hit in hits(path)
    ]
    if "--count" not in sys.argv:
        print(*found, sep="\n")
    print(f"sentences: {len(found)} to look at")
