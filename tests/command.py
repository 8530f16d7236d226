"""A command line of mapsto, in the process of the tests."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from mapsto.cli import main as cli


class Done(NamedTuple):
    """What a command printed; messages with single blanks between their words."""

    out: str
    err: str


def mapsto(*arguments: object, code: int, given: bytes = b"") -> Done:
    """Runs a command, which has to end with that exit code, and with a traceback for no user's mistake."""
    out, err = io.StringIO(), io.StringIO()

    class Input:
        buffer = io.BytesIO(given)

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["mapsto", *map(str, arguments)])
        patch.setattr(sys, "stdin", Input)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    done = Done(out.getvalue(), " ".join(err.getvalue().split()))
    assert ended.value.code == code, done.err
    assert "Traceback" not in done.err
    assert ("a fault of mapsto" in done.err) is (code == 1)
    return done
