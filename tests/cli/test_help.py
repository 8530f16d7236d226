"""Whatever a help text, a message or a page tells the reader to type does what it says there."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer.main
import yaml
from PIL import Image
from tests.command import mapsto
from tests.test_readme import PAGES as NAMES_OF_PAGES
from tests.test_readme import SITE, block
from tests.text.packages import ROWS, write_table
from tests.text.tiny_encoder import tiny_encoder

from mapsto import discovery
from mapsto.cli.app import app
from mapsto.cli.bench import benchmarks
from mapsto.cli.progress import try_next
from mapsto.recipe.reader import load_recipe, shipped_recipes
from mapsto.report.build import load
from mapsto.search.advisor.runs import Runs, shipped
from mapsto.service.state import FeedbackRow, State, VersionRow, default_state
from mapsto.testing import lock
from mapsto_runtime.errors import CARRIED

ROOT = Path(__file__).parents[2]
SOURCES = [
    path for part in ("src/mapsto", "runtime/src/mapsto_runtime") for path in sorted((ROOT / part).rglob("*.py"))
]
PAGES = [ROOT / name for name in NAMES_OF_PAGES]
SAID_IN = [*PAGES, *sorted((ROOT / "docs" / "tutorials").glob("*.py")), *shipped_recipes().values()]

# A reader's words, and the parts that a message fills in, as they stand in the folder that `place` makes.
STAND_FOR = {
    "AGE": "30d", "COLUMN": "column", "DATA": "digits", "FILE": "photo1.png", "FILE.csv": "table.csv", "FOLDER": "photos",
    "FOLDER_OF_EXAMPLES": "photos", "ID": "b", "LEARNER": "runs/meta_protonet", "N": "2", "NAME": "prune.taylor",
    "RECIPE": "demo", "RUN": "runs/demo",
    "prune.smallest": "prune.taylor", "YOUR_FILE": "photo1.png", "列名": "column",
}  # fmt: skip
FILLED_IN = {
    "column": "column", "demo": "runs/demo", "examples": "photos", "feature": "a", "file": "photo1.png",
    "folder": "runs/demo", "free": "mine",
    "limit": "bytes=200kB", "model": "runs/demo", "name": "vgg", "run": "runs/demo", "snapshot": "runs/table",
    "caller": "phone", "number": "b", "pictures": "photos/cat", "recipe": "mine.yaml", "source": "demo", "store": "kept",
    "space": "search_digits", "table": "table.csv", "text": "text",
    "book": "book.txt", "learnt": "runs/book", "beginning": "row", "learner": "online.language",
}  # fmt: skip
ALL = typer.main.get_command(app)
TINY = """\
schema: 1
name: demo
data:
  few: {subset: {data: {digits: {size: 8}}, per_class: 4}}
  tasks: {episodes: {data: $few, ways: 5, shots: 1, queries: 1}}
steps:
  - networks.conv4: {data: $few, width: 16, blocks: 2}
  - meta.protonet: {tasks: $tasks, steps: 2}
    as: teacher
    observe: {size: {evaluate.size: {}}}
  - adapt.centroid: {data: $few}
  - export.onnx: {data: $few}
"""


def commands(tree: Any = ALL, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that lead to it."""
    for name, command in getattr(tree, "commands", {}).items():
        yield from commands(command, (*path, name))
    if path and not getattr(tree, "commands", {}):
        yield path, tree


FACTORY = """\
from torch import nn


def factory():
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 2))
"""
COMMANDS = dict(commands())
NAMED = re.compile(rf"\bmapsto ({'|'.join(sorted({path[0] for path in COMMANDS}))})\b")


def _of_help() -> list[str]:
    """Every example, and every command between backticks, of every help text."""
    texts = [command.help or "" for command in COMMANDS.values()]
    return [
        said
        for text in texts
        for said in re.findall(r"Example: (mapsto .+)|`(mapsto [^`]+)`", text)
        for said in said
        if said
    ]


class Texts(NamedTuple):
    """What the sources hold for readers, each with its file."""

    commands: list[tuple[str, str]]
    hints: list[tuple[str, str]]
    others: list[tuple[str, str]]
    """Texts that are neither the one nor a docstring, nor say where an error is."""


@cache
def texts(holding: str) -> Texts:
    """Of the sources in which that pattern occurs: to parse them all takes seconds."""
    found = Texts([], [], [])

    def read(node: ast.AST, file: str, kept: list[tuple[str, str]]) -> None:
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
                continue
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                kept.append((file, part.value))
            elif (
                isinstance(part, ast.Call)
                and isinstance(part.func, ast.Name)
                and part.func.id == "command"
                and part.args
            ):
                assert isinstance(part.args[0], ast.Constant), (
                    f"{file}:{part.lineno}: a command is written where it is called"
                )
                found.commands.append((file, str(part.args[0].value)))
            elif isinstance(part, ast.keyword) and part.arg == "hint":
                before = len(kept)
                read(part, file, kept)
                found.hints.extend(kept[before:])
            elif not (isinstance(part, ast.keyword) and part.arg == "where"):
                read(part, file, kept)

    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if re.search(holding, text):
            read(ast.parse(text), path.name, found.others)
    return found


def _of_messages() -> list[str]:
    """Every command that a message can name, its fields filled in."""
    return [text.format(**FILLED_IN) for _, text in texts(r"\bcommand\(").commands]


def _of_pages() -> list[str]:
    """Every command of a shell block, an indented line, or between backticks."""
    found: list[str] = []
    for path in SAID_IN:
        text = path.read_text(encoding="utf-8").replace(" \\\n", " ")
        lines = [line.removeprefix("#").strip() for line in text.splitlines()]
        typed = [
            line for line in lines if re.match(r"(\.venv/bin/)?mapsto ", line) and NAMED.match(line.split("bin/")[-1])
        ]
        quoted = re.findall(r"`((?:\.venv/bin/)?mapsto [^`]+)`", text.replace("\n", " "))
        whole = re.findall(r": (mapsto run [^.]+)\. ", text)  # in the comment of a recipe
        found += [line.split(" #")[0].split("bin/")[-1].strip() for line in [*typed, *quoted, *whole]]
    return [each for each in dict.fromkeys(found) if NAMED.match(each)]


SAID = list(dict.fromkeys([*_of_help(), *_of_messages(), *_of_pages()]))


def words_of(text: str) -> list[str]:
    """What a shell makes of it in the folder of `place`: words of the reader replaced, patterns expanded."""
    typed = [STAND_FOR.get(word, word) for word in shlex.split(text)[1:]]
    if typed[0] == "compress":  # of the classes that runs/demo has
        typed = [
            "digits" if said == "FOLDER" else word for said, word in zip(shlex.split(text)[1:], typed, strict=True)
        ]
    if typed[0] == "evaluate":
        typed = [
            "digits" if said == "FOLDER" else word for said, word in zip(shlex.split(text)[1:], typed, strict=True)
        ]
    if typed[0] == "bench":
        typed = ["engine" if word == STAND_FOR["NAME"] else word for word in typed]
    return [each for word in typed for each in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]


def parsed(words: list[str]) -> dict[str, Any]:
    """What the real parser makes of the words of a command; it raises where there is no such command, option or value."""
    path = next(path for path in COMMANDS if tuple(words[: len(path)]) == path)
    with COMMANDS[path].make_context("mapsto", words[len(path) :]) as context:
        return dict(context.params)


def _promoted(package: Path) -> None:
    """A version of a served package that answers, after another, and a label: what a service leaves."""
    state = State(default_state(package))
    for before, name in (("", "l-1"), ("l-1", "l-2")):
        state.add_version(VersionRow(model="demo", version=name, kind="learned", parent="1", package="p", content=b""))
        state.promote("demo", name, read=before, why="")
    label = {"label": "0", "answer": "1", "version": "", "features": np.zeros(4, np.float32).tobytes()}
    state.append([FeedbackRow(model="demo", event="e", tenant="customer-17", caller="phone", **label)])
    state.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name: photographs, a table, a network of one's own, and runs."""
    folder = tmp_path_factory.mktemp("reader")
    draw = np.random.default_rng(0)
    for name, ink in (("cat", 60), ("dog", 200)):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.clip(draw.normal(ink, 20, (24, 24)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    (folder / "more_photos").mkdir()
    for i in range(10):
        pixels = np.clip(draw.normal((60, 200)[i % 2], 20, (24, 24)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "more_photos" / f"{i}.png")
    (folder / "new").mkdir()
    Image.open(folder / "photos" / "cat" / "0.png").save(folder / "new" / "0.jpg")
    for digit in "01":
        (folder / "scans" / digit).mkdir(parents=True)
        for i in range(3):
            pixels = draw.integers(0, 256, (16, 16)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "scans" / digit / f"{i}.png")
    shutil.copytree(folder / "scans", folder / "held_out")
    for i in (1, 2):
        shutil.copy(folder / "photos" / "cat" / "0.png", folder / f"photo{i}.png")
    rows = [f"{draw.normal(4 * (i % 2)):.3f},{draw.normal():.3f},{'yes' if i % 2 else 'no'}" for i in range(20)]
    (folder / "book.txt").write_text("Row, row, row your boat, gently down the stream.\n" * 20, encoding="utf-8")
    (folder / "table.csv").write_text("\n".join(["a,b,column", *rows]) + "\n", encoding="utf-8")
    ratings = [f"{i % 7}\t{i % 5}\t{1 + i % 3}\t{880_000_000 + i}" for i in range(60)]
    (folder / "u.data").write_text("\n".join(ratings) + "\n", encoding="utf-8")
    (folder / "users.csv").write_text("user\n1\n2\n", encoding="utf-8")
    (folder / "offers.csv").write_text("user,item\n1,2\n2,3\n", encoding="utf-8")
    tiny_encoder(folder / "encoder")
    for path in (folder / "ours.json", folder / "theirs.json", folder / "kept" / "advisor" / "runs.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Runs(tasks=shipped().tasks[:1]).save(path)
    for name in ("intents", "held_out", "pairs"):
        write_table(folder / f"{name}.csv", [(f"{text} {i}", intent) for i in range(4) for text, intent in ROWS])
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (folder / "mine.yaml").write_text(block("README.md", "yaml"), encoding="utf-8")
    (folder / "package").mkdir()
    (folder / "package" / "module.py").write_text(FACTORY, encoding="utf-8")
    names: dict[str, Any] = {}
    exec(FACTORY, names)
    torch.save(names["factory"]().state_dict(), folder / "weights.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MAPSTO_STORE", str(folder / "kept"))
        mapsto("run", "tiny.yaml", "--out", "runs/demo", "--threads", 1, code=0)
        mapsto("stream", "table.csv", "--target", "column", code=0)
        mapsto("stream", "book.txt", "--learner", "online.language", code=0)
        mapsto("stream", "u.data", "--target", "rating", "--learner", "online.recommend", code=0)
        mapsto("keys", "make", "runs/demo", "--name", "phone", code=0)
        mapsto("package", "make-key", "KEY.pem", code=0)
        _promoted(folder / "runs" / "demo" / "package")
        mapsto("state", "backup", "runs/demo", "--out", "sunday.sqlite", code=0)
        given = ("--text", "text", "--target", "intent", "--minutes", 0)
        mapsto("adapt", "encoder", "intents.csv", *given, "--out", "runs/adapted", code=0)
    for name in ("intents", "mails", "names", "same"):
        shutil.copytree(folder / "runs" / "adapted", folder / "runs" / name)
    for name in ("short", "meta_protonet", "photos", "vgg_cifar"):
        shutil.copytree(folder / "runs" / "demo", folder / "runs" / name)
    mapsto("package", "sign", folder / "runs" / "demo", "--key", folder / "KEY.pem", code=0)
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "here" / "kept"))
    return tmp_path / "here"


def test_every_command_has_an_example_and_the_helper_finds_them() -> None:
    for path, command in COMMANDS.items():
        assert f"Example: mapsto {' '.join(path)}" in command.help, path
    assert "mapsto list recipes" in _of_messages()
    assert "mapsto run mine.yaml" in _of_pages()
    assert len(SAID) > 40


def test_no_message_names_a_command_by_another_way() -> None:
    """Else nobody would find out that it does not work."""
    assert [each for each in texts(NAMED.pattern).others if NAMED.search(each[1])] == []


def test_options_and_mappings_in_hints_are_there() -> None:
    options = {name for command in COMMANDS.values() for each in command.params for name in each.opts} | {
        "--help",
        "--upgrade",
    }  # the last is pip's
    known = {*discovery.entries("mappings"), *discovery.entries("data")}
    families = "|".join(sorted({name.partition(".")[0] for name in discovery.entries("mappings")}))
    wrong = [
        (file, each)
        for file, text in texts(rf"hint=(?:.*\n){{0,3}}?.*(?:--[a-z]|\b(?:{families})\.)").hints
        for each in (
            *re.findall(r"(?<![\w-])--[a-z][a-z-]+", text),
            *re.findall(rf"\b(?:{families})\.[a-z_]+\b(?![.(=:])", text),
        )
        if each not in known | options
    ]
    assert wrong == []


# What takes longer is run by the slow test below; here a run and a compression are planned, which reads the recipe and its settings.
SLOW = ("serve", "studio", "adapt", "bench", "lock")


def takes_long(words: list[str]) -> bool:
    """Whether a command serves, trains or loads a real encoder of texts."""
    return words[0] in SLOW or "--text" in words or words[:2] == ["advise", "photos"]


def of_a_tutorial(words: list[str]) -> bool:
    """Whether a command asks for what a tutorial alone makes."""
    return bool({"vgg.yaml", "runs/vgg"} & set(words))


def of_a_large_folder(words: list[str]) -> bool:
    """Whether a command asks for a folder of ImageNet's layout, which `tests/data/test_large_folder.py` makes up."""
    return any("/data/imagenet" in word for word in words)


@pytest.mark.parametrize("text", SAID)
def test_what_is_said_works(text: str, place: Path) -> None:
    words = words_of(text)
    if tuple(words) in COMMANDS and any(each.required for each in COMMANDS[tuple(words)].params):
        return  # it stands for the command, and cannot be typed alone
    given = parsed(words)
    if words[0] == "bench" and given["name"]:
        assert given["name"] in benchmarks()
    elif "encoder.folder=FOLDER" in words:
        load_recipe(words[1], settings={"encoder.configuration": None, "encoder.folder": "FOLDER"})  # the reader's own
    elif of_a_tutorial(words) or of_a_large_folder(words):
        return  # which its own test runs, behind what makes these files
    elif words[:2] == ["run", "compress_resnet_cifar"] and "MAPSTO_DATA" not in os.environ:
        pytest.skip("needs MAPSTO_DATA with weights/cifar10_resnet56*.th")
    elif "stream_language" in words and "MAPSTO_DATA" not in os.environ:
        pytest.skip("needs MAPSTO_DATA with text/language/*.txt")
    elif not takes_long(words):
        (place / "mine.yaml").unlink() if words[0] == "new" else None
        (place / "KEY.pem").rename("kept.pem") if words[1:2] == ["make-key"] else None
        (place / "KEY.pub.pem").rename("kept.pub.pem") if words[1:2] == ["make-key"] else None
        mapsto(
            *words,
            *(["--plan"] if words[0] in ("run", "compress", "search") and "--plan" not in words else []),
            *(["--no-speed"] if words[0] == "evaluate" else []),
            code=0,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        text
        for text in SAID
        if (shlex.split(text)[1] in ("run", "compress", "search") or takes_long(shlex.split(text)[1:]))
        and not of_a_tutorial(shlex.split(text))
    ],
)
def test_what_is_said_works_to_the_end(text: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the recipes' quick settings, and a benchmark's; the lock of this checkout is compared, and not written."""
    words = words_of(text)
    if words[0] == "lock":
        monkeypatch.setattr(lock, "_lock_folder", lambda: place / "locks")
        monkeypatch.setattr(lock, "entries", dict)
    faster = {"run": ["--quick"], "compress": ["--epochs", "1", "--shares", "0.5"], "bench": ["--quick"]}
    faster["search"] = ["--quick"] if "--trials" in words else ["--quick", "--trials", "2"]
    if words == ["run", "mine.yaml"]:
        faster["run"] = ["--set", "big.epochs=1", "--set", "distill.logits.epochs=1"]
    if tuple(words) in COMMANDS and any(each.required for each in COMMANDS[tuple(words)].params):
        return
    if "encoder.folder=FOLDER" in words or ("cuda" in words and not torch.cuda.is_available()):
        pytest.skip("needs a CUDA device, or a folder saved by transformers")
    words += [each for each in faster.get(words[0], []) if each not in words or each == "--set"]
    if words[0] in ("serve", "studio"):  # they serve until they are ended, which tests/service and tests/studio do
        return
    if words[0] == "adapt" and "--target" not in words and "--minutes" not in words:
        words += ["--minutes", "0"]
    if "--processes" in words:  # which starts others, and takes them with it when it ends
        subprocess.run([sys.executable, "-m", "mapsto", *words], check=True, capture_output=True)
    else:
        mapsto(*words, code=0)


CODE = [
    (file, number, code)
    for file in SITE
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / file).read_text("utf-8"), re.DOTALL))
    if file
    not in (
        "docs/recipes.md",
        "docs/service.md",
    )  # a training of an epoch of thirty, a service: see test_readme, test_service_page
    and not file.startswith("docs/examples/")  # whose blocks go together: each has a test of its own
    and not code.startswith(">>>")  # a session, which the tests of its page run
]

EXTRAS_OF_CODE = {"docs/privacy.md": ("presidio_analyzer",)}  # too large for every environment


@pytest.mark.parametrize(("file", "number", "code"), CODE, ids=lambda value: value if len(str(value)) < 40 else "")
def test_the_code_of_a_page_runs(
    file: str, number: int, code: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra in EXTRAS_OF_CODE.get(file, ()):
        pytest.importorskip(extra)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "package.module", raising=False)
    monkeypatch.delitem(sys.modules, "package", raising=False)
    exec(compile(code, f"{file}, block {number}", "exec"), {"__name__": "page"})


def test_what_to_try_next_keeps_the_options_of_the_run(place: Path) -> None:
    options = ["--threads", "1", "--seed", "3", "--store", "another store", "--trust", "package"]
    place.joinpath("tiny.yaml").write_text(TINY.partition("  - adapt")[0], encoding="utf-8")
    mapsto("run", "tiny.yaml", "--set", "teacher.steps=1", "--out", "my runs/demo", *options, code=0)
    (place / "my runs" / "demo" / "package" / "learner").mkdir(parents=True)
    learner, plan, new = try_next(load(Path("my runs/demo")), Path("my runs/demo"))
    assert learner == "mapsto adapt 'my runs/demo' FOLDER_OF_EXAMPLES --trust package"
    planned = mapsto(*shlex.split(plan)[1:], "--json", code=0)
    assert {row["status"] for row in json.loads(planned.out)} == {"hit"}, "the same seed, threads, settings and store"
    mapsto(*shlex.split(new)[1:], code=0)
    own = Path("mine_2.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(own)["steps"][1]["meta.protonet"]["steps"] == 1, (
        "of the run, not of the file that it began with"
    )


def test_options_that_a_message_carries_on_are_those_of_the_command_that_it_names() -> None:
    for option, names in CARRIED.items():
        taking = {path[0] for path, each in COMMANDS.items() if any(option in part.opts for part in each.params)}
        assert set(names) == taking


@pytest.mark.parametrize("source", ["my runs/demo", "my runs/demo/recipe.yaml", "tiny.yaml"])
def test_the_command_that_new_prints_works_as_printed(source: str, place: Path) -> None:
    """It trusts what the run was told to trust, and finds the run's steps; of a recipe, it trusts the factories that it names."""
    checkpoint = "{networks.checkpoint: {factory: package.module:factory, file: weights.pt, channels: 3, size: 8}}"
    place.joinpath("tiny.yaml").write_text(f"schema: 1\nname: demo\nsteps: [{checkpoint}]\n", encoding="utf-8")
    assert "pass --trust package" in mapsto("run", "tiny.yaml", code=2).err
    options = ["--store", "another store", "--threads", "1", "--seed", "3", "--trust", "package"]
    mapsto("run", "tiny.yaml", "--out", "my runs/demo", *options, code=0)
    printed = mapsto("new", "own", "--from", source, code=0).out.partition("run it with: ")[2]
    assert json.loads(mapsto("new", "other", "--from", source, "--json", code=0).out)["run"] == printed.strip().replace(
        "own.", "other."
    )
    words = shlex.split(printed)[1:]
    assert words == ["run", "own.yaml", *(options if source != "tiny.yaml" else options[-2:])]
    mapsto(*words, code=0)
    if source != "tiny.yaml":
        planned = json.loads(mapsto(*words, "--plan", "--json", code=0).out)
        assert {row["status"] for row in planned} == {"hit"}


def test_new_leaves_no_recipe_behind_that_cannot_be_read(place: Path) -> None:
    place.joinpath("broken.yaml").write_bytes(b"schema: 1\nsteps: \xff\n")
    assert "not a text in UTF-8" in mapsto("new", "fresh", "--from", "broken.yaml", code=2).err
    place.joinpath("broken.yaml").write_bytes(b"schema: 1\nsteps: [{networks.nothing: {}}]\n")
    assert "networks.nothing" in mapsto("new", "fresh", "--from", "broken.yaml", code=2).err
    assert not place.joinpath("fresh.yaml").exists()
    for name in ("no", "12", "小"):
        place.joinpath("named.yaml").write_text("schema: 1\nname: x\nsteps: [{networks.mlp: {}}]\n")
        mapsto("new", name, "--from", "named.yaml", code=0)
        assert load_recipe(place / f"{name}.yaml").name == name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rnu demo", "there is no command 'rnu'; did you mean 'run'?; see mapsto --help"),
        ("store lss", "there is no command 'lss'; did you mean 'ls'?; see mapsto store --help"),
        ("demo", "did you mean `mapsto run demo`?"),
        ("my.yaml", "did you mean `mapsto run my.yaml`?"),
        ("prune.taylor", "did you mean `mapsto show prune.taylor`?"),
        ("xyzzy", "there is no command 'xyzzy'; known: adapt, advise, bench"),
        ("run --sed 3", "there is no option '--sed'; did you mean '--seed'?"),
        ("list prun.taylor", "did you mean 'prune.taylor'"),
    ],
)
def test_a_mistyped_word_gets_the_nearest_that_there_is(words: str, said: str) -> None:
    assert said in mapsto(*words.split(), code=2).err
