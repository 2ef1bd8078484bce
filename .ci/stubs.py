"""Type stubs of the packages whose names are looked up lazily, written from their tables.

    .ci/stubs.py            write `__init__.pyi` beside each `__init__.py` with a table
    .ci/stubs.py --check    write nothing; fail if a stub is not what the table says

The package is parsed, not imported. Old names are not in a stub: a type checker reports them.
"""

import ast
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent
HEAD = "# Written by .ci/stubs.py from the tables in __init__.py. Do not edit by hand.\n\n"


def table(tree: ast.Module, name: str) -> dict[str, str] | tuple[str, ...]:
    """The literal that the module assigns to `name`; empty without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return ast.literal_eval(node.value)
    return ()


def lazy(tree: ast.Module) -> bool:
    """Whether the package has such a table."""
    return bool(table(tree, "_HOMES") or table(tree, "_ROOMS"))


def stub(path: pathlib.Path) -> str:
    """The stub of the package whose `__init__.py` is `path`."""
    tree = ast.parse(path.read_text())
    package = ".".join(path.parent.relative_to(ROOT).parts)
    homes = dict(table(tree, "_HOMES"))
    version = any(getattr(n, "id", None) == "__version__" for n in ast.walk(tree))
    lines = [
        f"from {package + home if home.startswith('.') else home} import {name} as {name}"
        for name, home in homes.items()
    ]
    names = [*homes, *["__version__"] * version]
    for room in table(tree, "_ROOMS"):
        inside, _, name = f"{package}.{room}".rpartition(".")
        lines.append(f"from {inside} import {name} as {name}")
        names.append(name)
    shown = "".join(f'    "{name}",\n' for name in sorted(names))
    end = f"\n__all__ = [\n{shown}]\n" + "__version__: str\n" * version
    return HEAD + "\n".join(sorted(lines)) + "\n" + end


def stubs() -> dict[pathlib.Path, str]:
    """Every stub by its path."""
    found = sorted((ROOT / "hjcontrol").rglob("__init__.py"))
    return {p.with_suffix(".pyi"): stub(p) for p in found if lazy(ast.parse(p.read_text()))}


def main() -> None:
    stale = [p for p, text in stubs().items() if not p.exists() or p.read_text() != text]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit("Run .ci/stubs.py: " + ", ".join(str(p.relative_to(ROOT)) for p in stale))
        return
    for path in stale:
        path.write_text(stubs()[path])
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
