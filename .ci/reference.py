"""Write the reference: a page for each room, one for the commands, one for the results.

    .ci/reference.py [FOLDER]          FOLDER: docs/reference

Every name of each `__all__` gets one anchor, `package.name`. An object that several packages export is
described in the room that defines it; the others link there. MkDocs then fills the pages from docstrings.
"""

import ast
import functools
import importlib
import inspect
import pathlib
import re
import sys
import types

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = {  # page: what it describes, the room first
    "control": ["hjcontrol.control"],
    "networks": ["hjcontrol.networks", "hjcontrol.networks.architectures"],
    "layers": ["hjcontrol.layers"],
    "solvers": ["hjcontrol.solvers", "hjcontrol.solvers.msa", "hjcontrol.solvers.riccati"],
    "convex": ["hjcontrol.solvers.convex"],
    "hamilton_jacobi": ["hjcontrol.hamilton_jacobi"],
    "deformation": ["hjcontrol.deformation"],
    "verification": ["hjcontrol.verification", "hjcontrol.testing"],
    "comparison": ["hjcontrol.comparison"],
    "analysis": ["hjcontrol.analysis"],
    "data": ["hjcontrol.data"],
    "reporting": [
        "hjcontrol.reporting",
        "hjcontrol.reporting.plots",
        "hjcontrol.reporting.landscapes",
    ],
}
PAGE_OF = {room: page for page, rooms in PAGES.items() for room in rooms}


def opening(thing: object) -> str:
    """The first sentence, or line, of what the object says of itself."""
    text = inspect.getdoc(thing) or ""
    return " ".join(text.split("\n\n")[0].split())


def names(room: str) -> list[str]:
    """What the room exports; of a module without `__all__`, what it defines itself."""
    module = importlib.import_module(room)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    defined = ast.parse(pathlib.Path(module.__file__).read_text()).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in defined if isinstance(node, kinds) and node.name[0] != "_"]


@functools.cache
def constants(package: str) -> dict[str, str]:
    """Where each name that a file of the package assigns at its top is assigned."""
    found = {}
    base = ROOT.joinpath(*package.split("."))
    for path in sorted(base.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            found |= {t.id: f"{module}.{t.id}" for t in targets if isinstance(t, ast.Name)}
    return found


def public(room: str, name: str) -> object:
    """The object of that name."""
    return getattr(importlib.import_module(room), name)


def home(room: str, name: str) -> str:
    """The dotted path under which the object is defined."""
    thing = public(room, name)
    if isinstance(thing, types.ModuleType):
        return thing.__name__
    if inspect.isclass(thing) or inspect.isroutine(thing):
        thing = inspect.unwrap(thing)
        if thing.__name__ == name:
            return f"{thing.__module__}.{name}"
    wrapped = getattr(thing, "__wrapped__", None)
    if wrapped is not None and getattr(wrapped, "__name__", "") == name:
        return f"{wrapped.__module__}.{name}"
    return constants(room).get(name, f"{room}.{name}")


def best_room(path: str) -> str:
    """The described package that is nearest to the dotted path."""
    fits = [room for room in PAGE_OF if path == room or path.startswith(room + ".")]
    return max(fits, key=len, default="")


def call(room: str, name: str) -> str:
    """How a class without an `__init__` of its own is called: its fields with their defaults."""
    thing = inspect.unwrap(public(room, name))
    if not inspect.isclass(thing) or inspect.isabstract(thing) or issubclass(thing, tuple):
        return ""
    if "def __init__" in inspect.getsource(thing) or "__init__" not in vars(thing):
        return ""
    fields = inspect.signature(thing).parameters.values()
    if sum(p.default is p.empty for p in fields) > 5:
        return ""  # an answer, made by a function of the room
    shown = []
    for p in fields:
        default = "" if p.default is p.empty else repr(p.default)
        default = "..." if "0x" in default or len(default) > 30 else default
        shown.append(f"{p.name}={default}" if default else p.name)
    return f"{room.replace('hjcontrol', 'hj', 1)}.{name}({', '.join(shown)})"


def described(room: str, name: str, path: str) -> str:
    """The Markdown that describes one object."""
    heading = f"{room.replace('hjcontrol', 'hj', 1)}.{name}"
    anchor = f"[](){{#{room}.{name}}}\n\n" if path != f"{room}.{name}" else ""
    called = call(room, name)
    if called:
        hidden = ("show_root_heading: false", "show_root_toc_entry: false", "heading_level: 3")
        options = "".join(f"      {option}\n" for option in hidden)
        own = f"#class-{name}-of-{room.replace('.', '-')}"
        head = f'## {heading} {{{own} data-toc-label="{name}"}}\n\n'
        text = f"```python\n{called}\n```\n\n"
        return f"{anchor}{head}{text}::: {path}\n    options:\n{options}"
    options = f"      heading: {heading}\n      toc_label: {name}\n"
    return f"{anchor}::: {path}\n    options:\n{options}"


def link(path: str, label: str) -> str:
    """A link to the page and anchor of a described object, or the label where there is none."""
    room = best_room(path)
    name = path.rsplit(".", 1)[1]
    if path in PAGE_OF:
        return f"[{label}]({PAGE_OF[path]}.md)"
    if room and name in names(room):
        return f"[{label}]({PAGE_OF[room]}.md#{room}.{name})"
    return label


def row(room: str, name: str, path: str) -> str:
    """A table row of an object that is described elsewhere."""
    thing = public(room, name)
    described_here = callable(thing) or isinstance(thing, types.ModuleType)
    says = re.split(r"\.(?:\s+(?=[A-Z])|$)", opening(thing))[0] if described_here else ""
    says = says.replace("\\|", "\\Vert ").replace("|", "\\|")
    anchor = f'<span id="{room}.{name}"></span>'
    return f"| {anchor}{link(path, f'`{name}`')} | {says} |"


def section(room: str, top: bool) -> str:
    """One package or module: its opening, what is described elsewhere, then its objects."""
    module, full, rows = importlib.import_module(room), [], []
    for name in names(room):
        path = home(room, name)
        here = best_room(path) == room and path not in PAGE_OF
        thing = public(room, name)
        if isinstance(thing, types.ModuleType) and path not in PAGE_OF:
            title = path.replace("hjcontrol", "hj", 1)
            full.append(f"[](){{#{path}}}\n\n## {title}\n\n{opening(thing)}\n")
            full += [described(path, inner, home(path, inner)) for inner in names(path)]
        elif here:
            full.append(described(room, name, path))
        else:
            rows.append(row(room, name, path))
    mark = f"# {room.rsplit('.', 1)[1]}" if top else f"## {room.replace('hjcontrol', 'hj', 1)}"
    table = ["| name | |", "|---|---|", *rows, ""] if rows else []
    return "\n".join([f"{mark}\n", f"`{room}`. {opening(module)}\n", *table, *full])


def index() -> str:
    """The names of `hjcontrol` itself, and the other pages."""
    module = importlib.import_module("hjcontrol")
    rows, full = [], []
    for name in module.__all__:
        path = home("hjcontrol", name)
        room = best_room(path)
        if path in PAGE_OF or (room and name in names(room)) or name.startswith("_"):
            rows.append(row("hjcontrol", name, path))
        else:  # no room exports it
            full.append(described("hjcontrol", name, path))
    return (
        "# Reference\n\nEvery public name of the package. `import hjcontrol as hj` gives the names of "
        "this table; rooms are reached through them, as in `hj.solvers.Newton`. The commands have a "
        "[page](commands.md), and so have the [results](results.md) of a solve.\n\n"
        "| name | |\n|---|---|\n" + "\n".join(rows) + "\n\n" + "\n".join(full)
    )


def option_row(p: object) -> str:
    """A table row: how the option is spelt, what it does, its default."""
    option = p.param_type_name == "option"
    spelt = [*p.opts, *p.secondary_opts] if option else [(p.metavar or p.name).upper()]
    spelling = ", ".join(f"`{name}`" for name in spelt)
    spelling += f" {p.metavar}" if option and p.metavar else ""
    shown = getattr(p, "show_default", None)
    given = "" if p.default in (None, False) else f"`{p.default}`"
    default = "required" if p.required else shown if isinstance(shown, str) else given
    says = " ".join((getattr(p, "help", "") or "").split())
    return "| " + " | ".join(a.replace("|", "\\|") for a in (spelling, says, default)) + " |"


def options() -> dict[str, list[str]]:
    """The options of every command."""
    import typer

    from hjcontrol.cli.app import app

    known = typer.main.get_command(app).commands
    return {
        name: [o for p in c.params if p.param_type_name == "option" for o in p.opts]
        for name, c in known.items()
    }


def commands() -> str:
    """Every option of every command, as the command line itself knows them."""
    import typer

    from hjcontrol.cli.app import app

    group = typer.main.get_command(app)
    parts = [
        "# Commands\n\nEvery option, as `hjcontrol COMMAND --help` shows it. Exit codes: 0 done and "
        "verified, 1 refuted, 2 bad usage or input, 3 nothing refuted but not everything shown, 70 a "
        "fault of the program, 130 interrupted.\n"
    ]
    for name, command in sorted(group.commands.items()):
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        wanted = [(p.metavar or p.name).upper() for p in arguments]
        usage = " ".join(["hjcontrol", name, *wanted, "[OPTIONS]"])
        says = inspect.cleandoc(command.help or "")
        parts.append(f"## {name} {{#hjcontrol-{name}}}\n\n```text\n{usage}\n```\n\n{says}\n")
        rows = [option_row(p) for p in command.params]
        if rows:
            parts.append("| option | | default |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def result_names() -> list[str]:
    """The members of `RESULTS`, in the order in which they are written."""
    import hjcontrol

    return list(hjcontrol.RESULTS._name_to_item)


def results() -> str:
    """Every way in which a solve can end, with its remedy."""
    from hjcontrol import RESULTS

    members = result_names()
    rows = [
        f"| `{name}` | {RESULTS[getattr(RESULTS, name)] or 'The tolerance was met.'} |"
        for name in members
    ]
    return (
        "# Results\n\n`solution.result` is one of these. A solve does not raise on a numerical failure "
        "unless `throw=True` was passed; the message says what to do.\n\n"
        "| result | message |\n|---|---|\n" + "\n".join(rows) + "\n"
    )


def write(folder: pathlib.Path) -> None:
    """All pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for page, rooms in PAGES.items():
        text = "\n".join(section(room, top=room == rooms[0]) for room in rooms)
        (folder / f"{page}.md").write_text(text)
    for page, text in (("index", index()), ("commands", commands()), ("results", results())):
        (folder / f"{page}.md").write_text(text)
    print(f"reference: {len(PAGES) + 3} pages in {folder}")


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "reference")
