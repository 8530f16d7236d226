"""Time that runs backwards is told once, with the event, whatever the blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mapsto import online, streams
from mapsto.context import Context
from mapsto.nn.online.clock import Clock

TIMES = [1.0, np.nan, 3.0, 3.0, 2.5, np.nan, 4.0, 1.0, 5.0]


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_the_first_event_that_is_earlier_is_told(size: int) -> None:
    clock, told = Clock(), []
    for start in range(0, len(TIMES), size):
        told.append(clock.check(np.array(TIMES[start : start + size]), start))
        other = Clock()
        other.restore(clock.snapshot())
        clock = other
    assert [text.partition(";")[0] for text in told if text] == [
        "time runs backwards: event 5 is 0.5 seconds earlier than one before it"
    ]
    assert (clock.backwards, clock.latest) == (2, 5.0)


def test_events_of_a_stream_whose_time_runs_backwards_are_taken_as_they_come(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text("when,a,y\n" + "".join(f"{time},{n},{n % 2}\n" for n, time in enumerate([5, 6, 4, 7, 3])))
    ctx = Context(seed=0)
    model = ctx.apply(online.softmax(stream=streams.csv(file=str(file), target="y", time="when")), None)
    assert model.events == 5
    assert model.values["aside"] == {}
    assert [text for text in ctx.warnings if "backwards" in text] == [
        "time runs backwards: event 3 is 2 seconds earlier than one before it; events are taken as they come"
    ]
