"""Generate docs/cli.md from the commands: run `python tests/cli_reference.py`."""

import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo

from vecsearch.cli import app
from vecsearch.cli.command import ENCODING, SHARED

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """\
# Command line

`python tests/cli_reference.py` makes this page from the commands.

Data goes to stdout; progress, notes and warnings go to stderr. The exit status is 0 if the command
did its work, 1 if it failed, 2 if its arguments cannot be understood, 130 if it was interrupted.
Each option is taken from the command line, else from the environment variable in brackets, else it
has its default.
"""
TYPES = {int: "N", float: "NUMBER", str: "TEXT", Path: "FILE"}


def reference() -> str:
    """Return the page."""
    parts = [HEAD, "## Options of every command\n", *_options(SHARED)]
    parts += ["\n## Options of commands that encode images\n", *_options(ENCODING)]
    for words, callback in _commands(app, "vecsearch"):
        parts += _section(words, callback)
    return "\n".join(parts) + "\n"


def _commands(tree: typer.Typer, words: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every command in the order of --help: commands, then groups."""
    for command in tree.registered_commands:
        assert command.callback is not None
        yield f"{words} {command.name}", command.callback
    for group in tree.registered_groups:
        assert group.typer_instance is not None
        yield from _commands(group.typer_instance, f"{words} {group.name}")


def _section(words: str, callback: Callable[..., Any]) -> Iterator[str]:
    annotations = {
        parameter.name: parameter.annotation
        for parameter in inspect.signature(callback).parameters.values()
    }
    defaults = {
        parameter.name: parameter.default
        for parameter in inspect.signature(callback).parameters.values()
    }
    encodes = ENCODING.keys() <= annotations.keys()
    own = {
        name: annotation
        for name, annotation in annotations.items()
        if name not in SHARED and name not in ENCODING
    }
    arguments = [_argument(name, own[name]) for name in own if _is_argument(own[name])]
    usage = " ".join([words, *(usage for usage, _ in arguments), "[OPTIONS]"])
    yield f"\n## {words.removeprefix('vecsearch ')}\n"
    yield f"```text\n{usage}\n```\n"
    yield inspect.cleandoc(callback.__doc__ or "")
    listed = [f"- `{_unbracketed(usage)}`: {help_}" for usage, help_ in arguments if help_]
    options = {name: annotation for name, annotation in own.items() if not _is_argument(annotation)}
    lines = [*map(_wrapped, listed), *_options(options, defaults)]
    if lines:
        yield ""
        yield from lines
    if encodes:
        yield "\nIt also takes the options of commands that encode images."


def _info(annotation: Any) -> Any:
    (info,) = (item for item in get_args(annotation)[1:] if hasattr(item, "help"))
    return info


def _unbracketed(usage: str) -> str:
    """Return what an argument is called, without brackets around the whole of it."""
    return re.sub(r"^\[([^][]*)\]$", r"\1", usage)


def _is_argument(annotation: Any) -> bool:
    return isinstance(_info(annotation), ArgumentInfo)


def _argument(name: str, annotation: Any) -> tuple[str, str]:
    info = _info(annotation)
    return info.metavar or name.upper(), info.help or ""


def _options(annotations: dict[str, Any], defaults: dict[str, Any] | None = None) -> Iterator[str]:
    for name, annotation in annotations.items():
        info = _info(annotation)
        assert isinstance(info, OptionInfo)
        # Inside Annotated, Typer keeps the first name as the default.
        told = (info.default, *(info.param_decls or ()))
        declared = [item for item in told if isinstance(item, str)]
        names = ", ".join(declared or [f"--{name.strip('_').replace('_', '-')}"])
        value = info.metavar or _value(get_args(annotation)[0])
        variable = f" [{info.envvar}]" if info.envvar else ""
        default = (defaults or {}).get(name)
        is_shown = default not in {None, False, inspect.Parameter.empty}
        shown = f" Default: {default}." if is_shown and "Default:" not in (info.help or "") else ""
        described = f"{info.help}{shown}{variable}"
        yield _wrapped(f"- `{f'{names} {value}'.strip()}`: {described}")


def _value(kind: Any) -> str:
    """Return what stands for an option's value; nothing for a flag."""
    if get_origin(kind) in {Union, types.UnionType}:
        (kind,) = (one for one in get_args(kind) if one is not types.NoneType)
    if kind is bool:
        return ""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "|".join(kind)
    return TYPES[kind]


def _wrapped(line: str) -> str:
    return textwrap.fill(
        line, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    PAGE.write_text(reference())
