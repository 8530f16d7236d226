"""The entry point of the command line: the commands, and how their errors end a process.

Every command has ``--help`` with an example and ``--json`` for machines. Exit codes: 0 done, 2 the user's mistake or the
environment's, 1 our failure, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from mapsto import discovery
from mapsto.cli import (
    advise,
    bench,
    catalog,
    compress,
    data,
    doctor,
    keys,
    lock,
    monitor,
    package,
    predict,
    report,
    run,
    search,
    serve,
    state,
    store,
    studio,
    versions,
)
from mapsto.cli.adapt import command as adapt_command
from mapsto.cli.app import app, fail, print_text
from mapsto.cli.evaluate import command as evaluate_command
from mapsto.cli.stream import command as stream_command
from mapsto.errors import MapstoError, command, is_environment_error, nearest, trouble
from mapsto.run.stopping import ends_on_sigterm
from mapsto_runtime import __version__

_COMMANDS = (
    run,
    stream_command,
    catalog,
    predict,
    evaluate_command,
    adapt_command,
    compress,
    search,
    advise,
    serve,
    keys,
    monitor,
    package,
    versions,
    state,
    data,
    report,
    studio,
    store,
    bench,
    doctor,
    lock,
)
"""Imported for the commands that they add to the application."""

__all__ = ["main"]


def main() -> NoReturn:
    """The entry point: runs a command and turns errors into messages and exit codes."""
    # Threads that spin at OpenMP's barriers make two runs at once many times slower than one after the other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    ends_on_sigterm()
    try:
        ended = app(prog_name="mapsto", standalone_mode=False)
        code = ended if isinstance(ended, int) else 0  # what `typer.Exit` was raised with; 130 for Ctrl-C
        if code == 130:
            raise KeyboardInterrupt
    except MapstoError as error:
        if os.environ.get("MAPSTO_DEBUG"):
            raise
        fail(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        fail(_stopped())
        code = 130
    except (BrokenPipeError, SystemExit) as end:
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            if end.code == 128 + signal.SIGTERM:
                fail(_stopped())
            raise  # typer exits with 1 for a closed pipe, as of `mapsto list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            _fail_of_usage(error)
            code = 2
        elif isinstance(error, OSError) and is_environment_error(error):
            what, remedy = trouble(error)
            place = f"{error.filename}: " if error.filename is not None else ""
            fail(f"{place}{what}; {remedy}, then run the same command again")
            code = 2
        elif isinstance(error, ValueError) and "null byte" in str(error):
            fail("a name holds a NUL byte, which no file can have; check the names that are given")
            code = 2
        elif isinstance(error, MemoryError):
            fail(f"out of memory: {error or 'a value is too large for this machine'}")
            code = 2
        else:
            if os.environ.get("MAPSTO_DEBUG"):
                raise
            fail(f"{type(error).__name__}: {error} (a fault of mapsto; MAPSTO_DEBUG=1 shows where, please report it)")
            code = 1
    sys.exit(code)


def _fail_of_usage(error: Any) -> None:
    """Say what click found wrong with the words of a command, the nearest option and where its help is."""
    text = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{text}\n")
        return
    text = text.rstrip(".")
    if type(error).__name__ == "NoSuchOption" and error.ctx is not None:
        options = [name for each in error.ctx.command.params for name in each.opts if name.startswith("--")]
        text = f"there is no option '{error.option_name}'; {nearest(error.option_name, options)}"
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mapsto"
    missing = re.match("No such command '(.*?)'", text, re.DOTALL)
    if missing is not None and context is not None:
        text = f"there is no command '{missing[1]}'; {_meant(missing[1], context.command.commands, path)}"
    fail(f"{text}; see {path} --help")


def _meant(word: str, commands: Iterable[str], path: str) -> str:
    """What was meant by a word in a command's place: a recipe to run, a mapping to look at, or the nearest command."""
    from mapsto.cli.catalog import recipes

    if path == "mapsto" and (word in recipes() or Path(word).suffix in (".yaml", ".yml")):
        return f"did you mean `{command('mapsto run {recipe}', recipe=word)}`?"
    if path == "mapsto" and any(word in discovery.entries(group) for group in catalog.groups()):
        return f"did you mean `{command('mapsto show {name}', name=word)}`?"
    return nearest(word, commands)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print_text(__version__)
        raise typer.Exit


def _stopped() -> str:
    """What is said where a signal ended a command."""
    return "stopped before it answered" if "serve" in sys.argv[1:2] else "stopped; the same command goes on from here"
