"""Erasing and deleting by age where the state is a PostgreSQL database."""

from __future__ import annotations

import time

import pytest

from mapsto.service.erasure import Erasure
from mapsto.service.retention import expire
from mapsto.service.state import FeedbackRow, State
from tests.service.databases import postgresql


def rows(tenant: str, count: int) -> list[FeedbackRow]:
    return [
        FeedbackRow(
            model="m", event=f"k/{number}", tenant=tenant, version="1", label="low", answer="", features=b"\0" * 12
        )
        for number in range(count)
    ]


@pytest.mark.slow
def test_labels_go_from_postgresql_too() -> None:
    with postgresql() as (url, _):
        state = State(url)
        state.append(rows("ann", 5))
        state.append(rows("bob", 3))
        erasure = Erasure(state, None)
        assert erasure.look("ann").labels == 5
        done = erasure.forget("ann")
        assert done.finished
        assert {row.tenant for row in state.feedback("m")} == {"bob"}
        assert state.to_erase() == []
        assert erasure.look("ann").before == done.tombstone
        assert not any(expire(state, time.time() - 3600).values())
        assert expire(state, time.time() + 1)["expired_labels"] == 3
        assert state.feedback("m") == []
        assert min(state.append(rows("new", 1))) > 8, "positions are not given again"
        state.close()
