"""What a step warns of or notes reaches the terminal, the run, report.json and the page, from its record too."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from tests.toys import Toy, Walk

from mapsto.cli.progress import Progress
from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.process import Live, State
from mapsto.report import page as html
from mapsto.report.build import build, combine
from mapsto.run.executor import execute
from mapsto.run.result import Listener, StepResult
from mapsto.store import Store

pytestmark = pytest.mark.usefixtures("trusted")


class Doubtful(Mapping[Network, Network]):
    """Gives what it was given, and says so."""

    def apply(self, value: Network, ctx: Context) -> Network:
        ctx.warn("8 of 9 layers stay in <float>")
        ctx.warn("8 of 9 layers stay in <float>")
        ctx.note("ran on 3 samples")
        logging.getLogger("mapsto").warning("2 files left out")
        return value


class Told(Listener):
    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    def warned(self, step: StepResult, text: str) -> None:
        self.said.append(("warning", step.name, text))

    def noted(self, step: StepResult, text: str) -> None:
        self.said.append(("note", step.name, text))


WARNINGS = ("8 of 9 layers stay in <float>", "2 files left out")


def test_a_hit_says_it_again(store_folder: Path) -> None:
    said: list[list[tuple[str, str, str]]] = []
    for _ in range(2):
        listener = Told()
        run = execute(Toy() >> Doubtful().labelled("small"), store=store_folder, listener=listener)
        said.append(sorted(listener.said))
        assert run.warnings == [("small", text) for text in WARNINGS]
        assert run.notes == [("small", "ran on 3 samples")]
    assert run.steps[1].hit
    assert said[0] == said[1]
    assert len(said[0]) == 3


def test_a_record_of_before_has_none(store_folder: Path) -> None:
    step = execute(Toy(), store=store_folder).steps[0]
    (file,) = (store_folder / "keys").rglob("*.json")
    tree = json.loads(file.read_text())
    del tree["warnings"], tree["notes"]
    file.write_text(json.dumps(tree))
    record = Store(store_folder).record(step.key)
    assert record is not None
    assert (record.warnings, record.notes) == ((), ())


def test_the_report_and_its_page_hold_them(store_folder: Path) -> None:
    report = build(execute(Toy() >> Doubtful(), store=store_folder))
    assert [said["text"] for said in report["warnings"]] == list(WARNINGS)
    assert report["steps"][1]["warnings"] == list(WARNINGS)
    assert report["steps"][1]["notes"] == ["ran on 3 samples"]
    page = html.render(json.loads(json.dumps(report)))
    top, steps = page.split("<main", 1)
    assert "2 warnings" in top
    assert "8 of 9 layers stay in &lt;float&gt;" in top
    assert "8 of 9 layers stay in &lt;float&gt;" in steps
    assert "ran on 3 samples" in steps
    assert len(combine([report, {**report, "seed": 1}])["warnings"]) == 4


@pytest.mark.parametrize("enabled", [True, False])
def test_the_terminal_shows_warnings_even_beside_json(
    enabled: bool, store_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = Progress(enabled=enabled)
    execute(Toy() >> Doubtful(), store=store_folder, listener=listener)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "8 of 9 layers stay in <float>" in shown.err
    assert ("ran on 3 samples" in shown.err) is enabled


def test_in_memory_they_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    Doubtful()(Toy()())
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == list(WARNINGS)


class Hesitant(Walk):
    """A walk that warns at its start."""

    def open(self, value: Network, state: State | None, ctx: Context) -> Live[Network]:
        if state is None:
            ctx.warn("this walk is short")
        return super().open(value, state, ctx)


def test_a_process_that_goes_on_still_says_it(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CHECKPOINT_SECONDS", "0")

    class Stop(Listener):
        def advanced(self, step, done, total, metrics):  # type: ignore[no-untyped-def]
            if done == 4:
                raise KeyboardInterrupt

    walk = Toy() >> Hesitant(steps=6)
    with pytest.raises(KeyboardInterrupt):
        execute(walk, store=store_folder, listener=Stop())
    assert [text for _, text in execute(walk, store=store_folder).warnings] == ["this walk is short"]
