"""``mapsto-predict``, or ``python -m mapsto_runtime``: a package's answers for files, where mapsto itself is not installed.

The words, the answers and the exit codes are those of ``mapsto predict``: 0 done, 2 the user's mistake or surroundings, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mapsto_runtime import __version__
from mapsto_runtime.answer_rows import given_input, line, package_folder, rows
from mapsto_runtime.errors import DomainError, MapstoError, is_environment_error, trouble
from mapsto_runtime.explanation import explained, require_explainable
from mapsto_runtime.explanation_lines import lines
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.shown import shown
from mapsto_runtime.signed_package import Trust

__all__ = ["main"]

_NAME = "mapsto-predict"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point: answers on standard output, notes and errors on standard error, and an exit code."""
    given = _parser().parse_args(arguments)
    try:
        trust = Trust.of(given.trusted_key, given.unsigned)
        code = _predict(
            given.package, given.files, top=given.top, as_json=given.json, trust=trust, explain=given.explain
        )
    except MapstoError as error:
        _say(f"error: {error}")
        code = error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # as of `mapsto-predict … | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        if not is_environment_error(error):
            raise
        _say(f"error: {error.filename or 'a file'}: {'; '.join(trouble(error))}")
        code = 2
    except KeyboardInterrupt:
        _say("stopped")
        code = 130
    sys.exit(code)


def _predict(
    package: Path, files: Sequence[str], *, top: int, as_json: bool, trust: Trust, explain: bool = False
) -> int:
    predictor = Predictor(package_folder(package), trust=trust)
    if predictor.verified.note:
        _say(predictor.verified.note)
    if explain:
        require_explainable(predictor)
    found: list[tuple[str, dict[str, Any]]] = []
    reasons: dict[int, list[str]] = {}
    errors: list[MapstoError] = []
    for name in files:
        texts = predictor.signature.preprocessing.kind == "text"
        given = given_input(name, texts=texts)
        answers = predictor.answers([given])
        errors += answers.errors
        why = explained(predictor, [given]) if explain else None
        by_place = {each.index: each for each in why.found} if why is not None else {}
        # What cannot be read is among the answers' errors already.
        errors += [error for error in why.errors if isinstance(error, DomainError)] if why is not None else []
        for title, prediction, row in rows(name, answers, top=top):
            if prediction.index in by_place:
                row["explanation"] = by_place[prediction.index].plain()
                reasons[id(row)] = list(lines(by_place[prediction.index]))
            found.append((title, row))
        for note in answers.notes:
            _say(note)
    if as_json:
        sys.stdout.write(shown(json.dumps([row for _, row in found], indent=2, ensure_ascii=False)) + "\n")
    else:
        for title, row in found:
            sys.stdout.writelines(f"{text}\n" for text in (line(predictor, title, row), *reasons.get(id(row), ())))
    sys.stdout.flush()
    for error in errors:
        _say(f"error: {error}")
    return errors[-1].exit_code if errors else 0


def _say(text: str) -> None:
    sys.stderr.write(f"{_NAME}: {shown(text)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_NAME,
        description="Classify files with a package that mapsto exported.",
        epilog=f"Example: {_NAME} runs/demo photo1.png photo2.png",
    )
    parser.add_argument("package", type=Path, help="a package's folder, or the folder of the run that made one")
    parser.add_argument(
        "files", nargs="+", help="images, .npy/.npz arrays, CSV or Parquet tables, texts, or - for standard input"
    )
    parser.add_argument("--top", type=_from_one, default=3, help="how many classes to show (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show which words, columns or places of an image speak for each answer, by hiding one after another",
    )
    parser.add_argument(
        "--trusted-key",
        action="append",
        default=[],
        metavar="FILE",
        help="load packages that are signed with this public key (PEM) alone; give several for several (default: $MAPSTO_TRUSTED_KEYS)",
    )
    parser.add_argument(
        "--unsigned",
        choices=("warn", "refuse"),
        default="",
        help="what becomes of packages that are not signed (default: $MAPSTO_UNSIGNED; refuse where a key is trusted)",
    )
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def _from_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 up")
    return int(text)


if __name__ == "__main__":
    main()
