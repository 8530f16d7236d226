"""What a run says, line by line with the second at which it came: printed, and kept as a file that `scripts/recording.py` draws."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Recording"]

COLUMNS = 108


class Recording:
    """Lines of commands, of what they print, and of what the benchmark says between them; a file that is there is gone on with."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        last = json.loads(lines[-1])["at"] if lines else 0.0
        self._began = time.monotonic() - last

    def say(self, text: str, kind: str = "said") -> None:
        """Print and keep a text, line by line."""
        for line in text.splitlines():
            entry = {"at": round(time.monotonic() - self._began, 2), "kind": kind, "text": line.rstrip()}
            with self.file.open("a", encoding="utf-8") as kept:
                kept.write(json.dumps(entry, ensure_ascii=False) + "\n")
            print(f"$ {line}" if kind == "command" else line, flush=True)

    def drop(self, kind: str) -> None:
        """Forget the lines of a kind, which are said anew."""
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
        self.file.write_text("".join(line for line in lines if json.loads(line)["kind"] != kind), encoding="utf-8")

    def command(self, shown: str, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> list[str]:
        """Run a command in a folder, and its lines as they come. Raises `CalledProcessError` where it fails."""
        self.say(shown, "command")
        process: subprocess.Popen[Any] = subprocess.Popen(
            command, cwd=folder, env=dict(environment) | {"COLUMNS": str(COLUMNS), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
        )  # fmt: skip
        found: list[str] = []
        for line in process.stdout or ():
            found.append(line.rstrip())
            self.say(line.rstrip() or " ", "output")
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, list(command), "\n".join(found))
        return found
