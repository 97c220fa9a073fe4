"""The `skybatch` command: verbs are imported when they are used, so that `--help` stays quick."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from skybatch.errors import SkybatchError

VERBS: dict[str, tuple[str, str]] = {
    "run": ("skybatch.cli.run", "Run the job that a job file describes."),
    "resume": ("skybatch.cli.run", "Go on with a job where it stopped."),
    "retry": ("skybatch.cli.run", "Try the items again that failed for good, and publish with their results."),
    "list": ("skybatch.cli.jobs", "List all jobs."),
    "status": ("skybatch.cli.jobs", "Show how far a job is, once or as it goes."),
    "logs": ("skybatch.cli.reports", "Show what a job's workers printed."),
    "errors": ("skybatch.cli.reports", "Show what failed in a job."),
    "cancel": ("skybatch.cli.jobs", "Stop a job, resumably."),
    "reduce": ("skybatch.cli.reduce", "Write what a job has finished so far, beside its outputs."),
    "fsck": ("skybatch.cli.upkeep", "Check a job's journal, and what it says of storage."),
    "rebuild": ("skybatch.cli.upkeep", "Make a lost journal anew, from the results stored so far."),
    "export": ("skybatch.cli.upkeep", "Write a job's summary as JSON."),
    "clean": ("skybatch.cli.clean", "Remove jobs and what they left beside their outputs."),
    "pool": ("skybatch.cli.pool", "Keep named executor configurations."),
    "plugins": ("skybatch.cli.plugins", "List the plugins that are loaded, and from where."),
    "doctor": ("skybatch.cli.doctor", "Check that jobs can run here."),
    "demo": ("skybatch.cli.demo", "Map the standard library's source; killed half-way, resumed, compared."),
}
"""Each verb's module, which has it as a function of that name (`list` as `list_`), and its short help."""

SIGPIPE_CODE = 141  # as a shell reports a program that SIGPIPE ended


class Verbs(click.Group):
    """A group that knows its commands by table and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name][0])
        command = getattr(module, f"{cmd_name}_" if cmd_name == "list" else cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # the reader has gone, as `head` does; click would call it a failure
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's own flush stays quiet
            return SIGPIPE_CODE

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from skybatch.errors import nearest

        if args and args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"unknown command {args[0]!r}{nearest(args[0], VERBS)}")
        return super().resolve_command(ctx, args)


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="JOB is a job's id, a unique prefix of it, or `last`; left out, it is the one that stands unfinished.",
)
@click.version_option(message="skybatch %(version)s", package_name="skybatch")
def skybatch() -> None:
    """Map every item of a dataset once, on the machines you have, and go on after any crash."""


def main() -> NoReturn:
    """The console script."""
    _fill_standard_descriptors()
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Run one command; the exit code. Expected errors become one line, unexpected ones stay tracebacks."""
    try:
        code = skybatch.main(list(arguments), prog_name="skybatch", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        _tell(error.show)
        return error.exit_code
    except SkybatchError as error:
        text = f"skybatch: {_inert(str(error))}"
        _tell(lambda: click.echo(text, err=True))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _tell(lambda: click.echo("skybatch: interrupted", err=True))
        return 130


def _tell(show: Callable[[], None]) -> None:
    """Say it on stderr; where that is gone, as after a hang-up, the exit code says it alone."""
    try:
        show()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # so that the interpreter's own flush stays quiet


def _fill_standard_descriptors() -> None:
    """Closed ones would be taken by files opened next, a journal say, and written to by whoever means the terminal."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _inert(text: str) -> str:
    from skybatch.cli.output import inert

    return inert(text)
