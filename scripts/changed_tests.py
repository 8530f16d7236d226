"""The tests that bear on what differs from main: committed since, changed and untracked files.

    python scripts/changed_tests.py                 names them, a line each
    python scripts/changed_tests.py --run [ARGS]    runs them by pytest with these arguments

A test file counts where it has changed itself, where it imports something that has, or where it names a mapping, data set or stream whose
entry in the lock covers a changed file; so do the contract of those mappings and the doctests of a changed file. What everything stands on
(kinds, mapping, context, process, the executor, pins, shared fixtures) selects all tests.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from mapsto import discovery
from mapsto.testing.lock import files_of

ROOT = Path(__file__).resolve().parents[1]
WHOLE = re.compile(
    r"src/mapsto/(kinds/|mapping\.py|context\.py|process\.py|discovery\.py|errors\.py|run/(executor|step_context|driver)\.py|testing/)"
    r"|conftest\.py|tests/(__init__|toys|nets)\.py|pyproject\.toml|constraints\.txt|Makefile"
)
READ = (
    ("recipes/", "test_recipes"),
    ("docs/", "test_doc"),
    ("README", "test_readme"),
    ("benchmarks/", "test_bench"),
    ("locks/", "test_lock"),
)
"""What a path begins with → what the tests that read all such files are called."""
PACKAGES = {"mapsto": ROOT / "src", "mapsto_runtime": ROOT / "runtime" / "src", "tests": ROOT}


def changed(base: str = "main") -> set[Path]:
    """Files that differ from `base`, or from the last commit where there is no such branch."""
    known = git("rev-parse", "--verify", "--quiet", base)
    since = git("merge-base", base, "HEAD") if known else ["HEAD"]
    names = git("diff", "--name-only", *since) + git("ls-files", "--others", "--exclude-standard")
    return {ROOT / name for name in names}


def git(*arguments: str) -> list[str]:
    """The lines that git answers; none where it refuses."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


@cache
def imported(file: Path) -> frozenset[Path]:
    """The files of this checkout that a file imports, within functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = [PACKAGES[top].joinpath(*name.split(".")) for name in names if (top := name.partition(".")[0]) in PACKAGES]
    targets = [target for place in places for target in (place.with_suffix(".py"), place / "__init__.py")]
    return frozenset(target for target in targets if target.is_file())


def touched(files: Iterable[Path]) -> set[str]:
    """Names of mappings, data sets and streams whose result a changed file may decide."""
    changed_files = set(files)
    return {
        entry.name
        for group in ("mappings", "data", "streams")
        for entry in discovery.entries(group).values()
        if entry.path is not None and files_of(entry.path) & changed_files
    }


def says(text: str, name: str) -> bool:
    """Whether a test speaks of a mapping or a data set: by its dotted name, as in Python, in a recipe or in an import."""
    family, _, stem = name.rpartition(".")
    dotted = re.escape(name) if family else rf"(datasets|streams)\.{re.escape(stem)}"
    return (
        re.search(
            rf"\b{dotted}\b|\.{re.escape(family or 'sets')}\.{re.escape(stem)} import|^\s*-? *{re.escape(name)}:",
            text,
            re.M,
        )
        is not None
    )


def selected(files: set[Path]) -> list[str] | None:
    """pytest's arguments for the tests that bear on these files; None for all of them."""
    relative = {path.relative_to(ROOT).as_posix() for path in files}
    if any(WHOLE.fullmatch(name) or WHOLE.match(name) for name in relative):
        return None
    names = touched(files)
    found = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.suffix == ".py" and path.exists() and "src/" in path.as_posix()
    }
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        text = test.read_text(encoding="utf-8")
        read = any(Path(name).name in text for name in relative if not name.endswith(".py"))
        read = read or any(
            name.startswith(folder) and test.name.startswith(starts) for name in relative for folder, starts in READ
        )
        if test in files or imported(test) & files or read or any(says(text, name) for name in names):
            found.add(test.relative_to(ROOT).as_posix())
    found.discard("tests/test_contract.py")
    cases = [
        f"tests/test_contract.py::test_contract[{name}-{promise}]"
        for name in sorted(names)
        for promise in promises()
        if "." in name
    ]
    return [*sorted(found), *cases]


def promises() -> list[str]:
    from mapsto.testing import PROMISES

    return list(PROMISES)


def main() -> int:
    arguments = selected(changed())
    if "--run" not in sys.argv:
        print("all" if arguments is None else "\n".join(arguments) or "none")
        return 0
    if arguments == []:
        print("nothing that a test reads differs from main")
        return 0
    more = sys.argv[sys.argv.index("--run") + 1 :]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *more, *(arguments or ())], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
