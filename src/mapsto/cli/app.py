"""The application that commands are added to, the options that they share, and how they print."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mapsto.errors import carrying
from mapsto_runtime.shown import shown

__all__ = [
    "JsonOption",
    "StoreOption",
    "TrustOption",
    "app",
    "fail",
    "print_json",
    "print_note",
    "print_text",
    "store_app",
]


ORDER = (
    "run",
    "stream",
    "adapt",
    "compress",
    "search",
    "advise",
    "predict",
    "evaluate",
    "serve",
    "keys",
    "monitor",
    "package",
    "versions",
    "feedback",
    "state",
    "data",
    "report",
    "studio",
    "list",
    "show",
    "new",
    "store",
    "bench",
    "doctor",
    "lock",
)
"""Of the commands in the help: first what a user does, then what helps."""


class _InOrder(TyperGroup):
    """Lists the commands as `ORDER` has them, whatever the order in which their files were imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=_InOrder,
    name="mapsto",
    help="Everything is a mapping: from a large pretrained model and a handful of labels to a small model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
store_app = typer.Typer(help="Look after the store of finished steps.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(store_app, name="store")


def carried(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Let the commands that messages name while this one runs have the option too."""
    given = [value] if isinstance(value, str) else list(value or ())
    ctx.with_resource(carrying({param.opts[0]: given}))
    return value


StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", help="The store's place: a folder or an fsspec URL. [default: $MAPSTO_STORE]", callback=carried
    ),
]
TrustOption = Annotated[
    list[str] | None, typer.Option("--trust", help="Allow factories of this module.", callback=carried)
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def fail(text: str) -> None:
    """Print an error to standard error."""
    sys.stderr.write(f"mapsto: error: {shown(text)}\n")


def print_note(text: str) -> None:
    """Print a note to standard error, out of the way of what is piped."""
    sys.stderr.write(f"mapsto: {shown(text)}\n")


def print_text(text: str) -> None:
    """Print to standard output, terminal escapes shown and not sent."""
    sys.stdout.write(f"{shown(text)}\n")


def print_json(value: Any) -> None:
    """Print a value as JSON to standard output."""
    print_text(json.dumps(value, indent=2, ensure_ascii=False))
