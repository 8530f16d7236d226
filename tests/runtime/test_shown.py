"""Control characters in names of classes and files are shown on a terminal, not sent to it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.markup import escape
from rich.table import Table

from mapsto import datasets
from mapsto.cli import app as cli
from mapsto.cli.progress import Screen
from mapsto.errors import DataError
from mapsto_runtime.shown import shown

EVIL = "cat\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


def test_shown_keeps_what_is_text_and_is_the_same_json() -> None:
    assert shown("naïve 猫 😀\n\tnext") == "naïve 猫 😀\n\tnext"
    assert shown(EVIL) == r"cat\u001b]0;owned\u0007\u001b[2J\u009b31m\u202e"
    assert shown("\udce9.png") == r"\udce9.png"  # a file's name that is no UTF-8 could not even be printed
    assert json.loads(shown(json.dumps({EVIL: "\x7f"}, ensure_ascii=False))) == {EVIL: "\x7f"}


def test_consoles_and_errors_show_them(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(file=io.StringIO(), width=200, force_terminal=True, highlight=False)
    table = Table()
    table.add_column(escape(EVIL))
    table.add_row(escape(EVIL))
    screen.print(table)
    screen.print(f"[bold]{escape(EVIL)}[/]")
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    assert text.count(r"\u001b[2J") == 3
    assert not any(piece in text for piece in ("\x1b[2J", "\x1b]0", "\x9b", "\x07", "\u202e"))
    cli.print_text(f"{EVIL}.png: {EVIL}")
    cli.fail(str(DataError("unreadable", where=EVIL)))
    captured = capsys.readouterr()
    for printed in (captured.out, captured.err):
        assert shown(EVIL) in printed
        assert "\x1b" not in printed


def test_a_class_of_such_a_name_is_named_in_a_warning(tmp_path: Path) -> None:
    (tmp_path / EVIL).mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / EVIL / "black.png")
    samples = datasets.images(folder=str(tmp_path)).open()
    assert samples.classes == (EVIL,)  # the name itself stays what it is
    screen = Screen(file=io.StringIO(), width=400)
    screen.print(escape(samples.warnings[0]))
    assert isinstance(screen.file, io.StringIO)
    assert "\x1b" not in screen.file.getvalue()
