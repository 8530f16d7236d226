"""What a step shows besides its result: kept with its record and its checkpoints, shown again by a hit, spared by gc."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.toys import Toy, Walk

from mapsto.context import Context
from mapsto.errors import StepError
from mapsto.kinds import Network, Series, Table
from mapsto.mapping import Mapping
from mapsto.process import Live, State
from mapsto.report import build, page
from mapsto.run.executor import execute
from mapsto.store import Store

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000030000000208000000") + b"the rest"


class Shows(Mapping[Network, Network]):
    """Its network, with something to look at."""

    def apply(self, value: Network, ctx: Context) -> Network:
        ctx.attach("chosen", Table(columns=("what", "loss"), rows=(("none", 0.5),)))
        ctx.attach("rates", Series(x=(1.0, 2.0), ys={"loss": (0.5, 0.25)}))
        ctx.attach("training_images", PNG)
        return value


pytestmark = pytest.mark.usefixtures("trusted")

BREAKS: list[int] = []
"""A walk is broken off once for each of these."""


class ShowingWalk(Walk):
    """Shows something where it begins, and never again."""

    def open(self, value: Network, state: State | None, ctx: Context) -> Live[Network]:
        if state is None:
            ctx.attach("beginning", Table(columns=("what",), rows=(("begun",),)))
        if BREAKS:
            BREAKS.pop()
            return super(ShowingWalk, dataclasses.replace(self, fail_at=2)).open(value, state, ctx)
        return super().open(value, state, ctx)


def shown(run: Any) -> dict[str, Any]:
    report = build.build(run)["steps"][-1]["report"]
    return {part: sorted(entries) for part, entries in report.items() if entries}


def test_attachments_are_in_the_report_also_of_a_hit_and_gc_spares_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    wanted = {"tables": ["chosen"], "series": ["rates"], "pictures": ["training_images"]}
    first = execute(Toy() >> Shows(), store=store)
    assert shown(first) == wanted
    store.gc()
    assert store.verify() == []
    again = execute(Toy() >> Shows(), store=store)
    assert again.reused
    assert shown(again) == wanted
    assert "Training images" in page.render(build.build(again))
    assert build.build(execute(Toy(), store=store))["steps"][-1]["report"] is None


def test_a_run_that_goes_on_still_shows_what_it_began_with(tmp_path: Path) -> None:
    store = Store(tmp_path)
    BREAKS.append(1)
    with pytest.raises(StepError, match="failed at 2"):
        execute(Toy() >> ShowingWalk(steps=6), store=store)
    assert shown(execute(Toy() >> ShowingWalk(steps=6), store=store)) == {"tables": ["beginning"]}
