"""docs/cli.md, made from the commands themselves: `python -m skybatch.cli.reference > docs/cli.md`."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator

import click

from skybatch.cli.exits import EXIT_CODES
from skybatch.cli.main import VERBS, skybatch
from skybatch.cli.shapes import SHAPES

HEAD = """\
# The `skybatch` command

`JOB` is a job's id, a unique prefix of it, or `last`. Left out, it is the one unfinished job, or of several the one
that has not failed; when there is none, or more than one, the command says so and ends with 2.

Results go to stdout; everything said to a person goes to stderr. Nothing is ever asked. Expected trouble is one
line and an exit code; every abnormal end of a job prints the command that goes on. Names, messages and logs are
shown with their control characters written as escapes.

"""

MIDDLE = """\
## What `--json` writes

Records have these fields, always all of them. A later version may add fields; it changes and removes none.

"""

WATCH = """\
With `--watch --json`, `skybatch status` writes one JSON object per line: a progress event after each commit,
`{"event": "progress", "state": "running", "done": 2, "dead": 0, "total": 6}`, and at last the record above.

"""


def document() -> str:
    """The whole page."""
    exits = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    commands = "".join(_command(name, command) for name, command in _commands())
    shapes = "".join(_shape(name, *shape) for name, shape in SHAPES.items())
    return (
        f"{HEAD}## Exit codes\n\n| code | meaning |\n| --- | --- |\n{exits}| 128+n | ended by signal n; resumable |\n\n"
        f"## Commands\n\n{commands}{MIDDLE}{shapes}".rstrip("\n")
        + "\n"
    )


def _commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(skybatch)
    for name in VERBS:
        command = skybatch.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())
        else:
            yield name, command


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"skybatch {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    text = f"### `skybatch {name} {usage}`\n\n{_text(command.help)}\n\n"
    rows = [_option(each) for each in command.params if isinstance(each, click.Option)]
    return text + (f"| option | |\n| --- | --- |\n{''.join(rows)}\n" if rows else "")


def _option(option: click.Option) -> str:
    choices = option.type.choices if isinstance(option.type, click.Choice) else []
    value = "" if option.is_flag else f" {option.metavar or '/'.join(choices)}"
    required = " Required." if option.required else ""
    default = f" Default: {option.default}." if option.show_default else ""
    return f"| `{', '.join(option.opts)}{value}` | {option.help}{required}{default} |\n"


def _text(help_text: str | None) -> str:
    paragraphs = (help_text or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _shape(name: str, shape: type, is_list: bool) -> str:
    text = f"### `{name}`: {'a list of records' if is_list else 'one record'}\n\n{_fields(shape)}\n"
    for inner in _records_in(shape):
        text += f"Each of the {inner.__name__} records in it:\n\n{_fields(inner)}\n"
    return text + (WATCH if name == "status" else "")


def _fields(shape: type) -> str:
    hints = typing.get_type_hints(shape, include_extras=True)
    rows = [
        f"| `{field.name}` | {_type(hints[field.name].__origin__)} | {hints[field.name].__metadata__[0]} |\n"
        for field in dataclasses.fields(shape)
    ]
    return f"| field | type | |\n| --- | --- | --- |\n{''.join(rows)}"


def _records_in(shape: type) -> Iterator[type]:
    for hint in typing.get_type_hints(shape).values():
        yield from (i for i in typing.get_args(hint) if isinstance(i, type) and dataclasses.is_dataclass(i))


def _type(hint: typing.Any) -> str:
    """The type as JSON has it."""
    if isinstance(hint, types.UnionType):
        return " or ".join(_type(each) for each in typing.get_args(hint))
    origin = typing.get_origin(hint) or hint
    if origin in (list, tuple):
        inner = _type(typing.get_args(hint)[0])
        return f"list of {inner}"
    names = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", type(None): "null"}
    return names.get(origin, getattr(origin, "__name__", str(origin)))


if __name__ == "__main__":
    print(document(), end="")
