"""A command: what it may be told, and the work that answers. The rest is done here, once for all.

    PDE = Command("pde", "What it does, in a line. ...", Asked, run)
    run(asked, screen) -> Iterator[Answer]      yields what has finished so far; it writes no file itself

From this come the options, the check of the folder, the files, what is printed, and what Ctrl-C keeps:
the last answer that `run` yielded.

    0  all was shown     1  something is refuted     3  nothing is refuted, and not all was shown
"""

import contextlib
import dataclasses
import inspect
import json
import os
import types
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import hjcontrol as hj
from hjcontrol._ground.record import Record
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.folder import output_folder, plain, save, save_json, save_page
from hjcontrol.cli.schema import Option, as_given, options_of, read, spelt
from hjcontrol.cli.terminal import Screen

SHOWN, REFUTED, OPEN, INTERRUPTED = 0, 1, 3, 130
NOTICE = "Interrupted by Ctrl-C: what had finished is shown."
NO_FILES: Mapping[str, Callable[..., Any]] = types.MappingProxyType({})

command_line: ContextVar[str] = ContextVar("command_line", default="hjcontrol")  # as it was typed


class Answer(NamedTuple):
    """What a command has found so far.

    - `content`: the command's JSON.
    - `record`: makes the record of it, which the terminal and the page show; `None` if the command has
      printed all of it. `more`: parts that only the page shows.
    - `told`: the lines below the record, the verdict first.
    - `code`: the exit code, if no further answer comes.
    - `kept`: what an interruption keeps, in words.
    - `files`: further files by name, written at once by `write(path)`; `drawn`: those that are written
      when the work is over.
    """

    content: Mapping[str, Any]
    record: Callable[[], Record] | None
    more: Callable[[], Sequence[Record]] = tuple
    told: Sequence[str] = ()
    code: int = 0
    kept: str = ""
    files: Mapping[str, Callable[[Path], Any]] = NO_FILES
    drawn: Mapping[str, Callable[[Path], Any]] = NO_FILES


class Command(NamedTuple):
    """One command of the command line.

    - `help`: its first paragraph stands in the list of commands.
    - `schema`: a frozen dataclass made of `schema.option`; with a field `out` the command writes files.
    - `run`: the work.
    - `config`: the argument of the schema that names a TOML file of the same keys, or "config" for an
      option `--config`; `None` if there is no such file.
    - `result`, `page`: the names of its JSON file and of its page, which `--open` opens.
    - `doubles`: whether 64-bit floats are turned on. A command owns its process.
    """

    name: str
    help: str
    schema: type
    run: Callable[[Any, Screen], Iterator[Answer]]
    config: str | None = None
    result: str = "result.json"
    page: str | None = "report.html"
    doubles: bool = True


def _keep_programs(config: Any) -> None:
    """Compiled programs stay in the user's cache folder: this process is ours, and the next one compiles
    the same. A folder that the user named is his, with his thresholds."""
    if config.jax_compilation_cache_dir is not None:
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    config.update("jax_compilation_cache_dir", str(Path(home, "hjcontrol", "jax")))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def perform(
    command: Command, asked: Any, screen: Screen, *, to_output: bool = False, browse: bool = False
) -> int:
    """Do the work, keep each answer as it comes, show the last one; return the exit code.

    - `to_output`: print the JSON on standard output.
    - `browse`: open the page in the browser.

    **Raises:** `CommandError` for input or a folder that cannot be used, and after an interruption that
    has left something to keep.
    """
    out = getattr(asked, "out", None)
    if command.doubles:
        import jax

        jax.config.update("jax_enable_x64", True)
        _keep_programs(jax.config)
    with contextlib.nullcontext() if out is None else output_folder(out):
        answer, interrupted, files = None, False, {}
        try:
            for answer in command.run(asked, screen):
                if out is not None:
                    _keep(command, answer, out)
                    files |= answer.files
        except KeyboardInterrupt:
            if answer is None:
                raise
            interrupted = True
        except hj.data.DataError as error:
            raise CommandError(str(error)) from None
        if answer is None:
            raise ValueError(f"the command {command.name} gave no answer")
        content = dict(answer.content) | ({"interrupted": True} if interrupted else {})
        if out is not None:
            save_json(out / command.result, content)
        record = None if answer.record is None else answer.record()
        if record is not None and not to_output:
            screen.answer(record, answer.told)
        if out is not None:
            _draw(command, asked, answer, record, NOTICE if interrupted else None, screen)
            pages = () if command.page is None else (command.page,)
            for name in (*pages, *answer.drawn, *files, command.result):
                screen.line(str(out / name))
            if browse and command.page is not None:
                webbrowser.open((out / command.page).resolve().as_uri())
        if to_output:
            print(json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False))
        if interrupted:
            where = "" if out is None else f" (in {out / command.result})"
            raise CommandError(f"interrupted; {answer.kept}{where}.", INTERRUPTED)
    return answer.code


def _keep(command: Command, answer: Answer, out: Path) -> None:
    """Write what there is: a process that is killed leaves it, marked as interrupted."""
    for name, write in answer.files.items():
        save(out / name, write)
    save_json(out / command.result, dict(answer.content) | {"interrupted": True})


def _draw(
    command: Command, asked: Any, answer: Answer, record: Any, notice: str | None, screen: Screen
) -> None:
    """The page, which also says what was asked, and what else is written at the end."""
    if command.page is not None:
        from hjcontrol.reporting.html import write_page

        told = Record("Asked", "", facts={spelt(k): _said(v) for k, v in vars(asked).items()})
        whole = record._replace(detail=(*record.detail, *answer.more(), told))
        save_page(asked.out / command.page, lambda path: write_page(path, whole, notice), screen)
    for name, write in answer.drawn.items():
        save_page(asked.out / name, write, screen)


def _said(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else None if value in ((), {}) else value


# ---------------------------------------------------------------------------------------- verdicts


def verdict(certificates: Mapping[str, Any]) -> str | None:
    """The worst verdict of any certificate; `None` without one."""
    from hjcontrol.verification.verdicts import worst_of

    return worst_of(c.verdict for c in certificates.values()) if certificates else None


def exit_code(certificates: Mapping[str, Any]) -> int:
    """What the shell is told. Without a certificate nothing was shown."""
    if verdict(certificates) == "refuted":
        return REFUTED
    return SHOWN if certificates and all(map(bool, certificates.values())) else OPEN


def told(certificates: Mapping[str, Any]) -> list[str]:
    """The verdict in a line, and a line for each certificate that is neither shown nor refuted."""
    from hjcontrol.verification.verdicts import ORDER

    lines = [f"verdict: {verdict(certificates) or 'none, nothing was verified'}"]
    for name, certificate in certificates.items():
        left = [] if certificate.verdict == "refuted" else certificate.failing(())
        if left:
            left.sort(key=lambda item: ORDER.index(getattr(item, "verdict", item)))
            more = f", and {len(left) - 1} more" if len(left) > 1 else ""
            lines.append(f"not shown, {name}: {_words(left[0])}{more}")
    return lines


def _words(item: Any) -> str:
    """A row, a pair of routes, or the verdict of the whole program."""
    if isinstance(item, str):
        return item
    place = hasattr(item, "rule")
    gap, where = (item.gap, item) if place else (item.disagreement, item.name.replace("|", " | "))
    far = f", gap {gap:.1e}" if item.verdict == "consistent" else ""
    return f"{item.verdict}, {where}{far}"


# ---------------------------------------------------------------------------------------- options

_CONFIG = Option(as_given, "the same options by name, below the command line", "FILE.toml")
_JSON = Option(
    as_given, "print the result as JSON on standard output, and nothing else", kind="flag"
)
_OPEN = Option(as_given, "open the page in the browser", kind="flag")
_QUIET = Option(as_given, "print errors only", kind="flag")


def as_function(command: Command) -> Callable[..., None]:
    """The command as a function whose parameters are its options, as typer expects."""
    own = {f.name: f.default for f in dataclasses.fields(command.schema)}
    options = {name: said for name, said in options_of(command.schema).items() if said.line}
    own = {name: own[name] for name in options}
    if command.config == "config":
        options["config"] = _CONFIG
    options |= (
        {"json": _JSON} | ({"open": _OPEN} if command.page is not None else {}) | {"quiet": _QUIET}
    )

    def call(**given: Any) -> None:
        file = None if command.config is None else given[command.config]
        told = {name: value for name, value in given.items() if name in own}
        before = "--config " if command.config == "config" else ""
        asked = read(command.schema, told, None if file is None else (before, file))
        screen = Screen(quiet=given["quiet"], aside=given["json"])
        raise typer.Exit(
            perform(command, asked, screen, to_output=given["json"], browse=bool(given.get("open")))
        )

    parameters = [_parameter(name, said, own.get(name)) for name, said in options.items()]
    paragraphs = inspect.cleandoc(command.help).split("\n\n")
    call.__doc__ = "\n\n".join(" ".join(p.split()) for p in paragraphs)
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    return call


def _parameter(name: str, said: Option, default: Any) -> inspect.Parameter:
    required = default is dataclasses.MISSING
    shown = said.shown
    if shown is None and not required and said.kind != "flag" and default is not None:
        shown = ", ".join(default) if isinstance(default, tuple) else str(default)
    how: dict[str, Any] = {
        "help": said.help,
        "metavar": said.metavar,
        "show_default": shown or False,
    }
    several = said.kind in ("many", "arguments")
    kind: Any = list[str] if several else bool if said.kind == "flag" else str
    if said.kind.startswith("argument"):
        face = typer.Argument(**how)
    else:
        face = typer.Option(f"--{spelt(name)}", **how)
    absent: Any = False if said.kind == "flag" else None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else absent,
        annotation=Annotated[kind if required or said.kind == "flag" else kind | None, face],
    )
