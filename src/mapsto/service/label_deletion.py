"""Labels that are deleted from a state: their rows, and what a learner holds back of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import sqlalchemy as sa

from mapsto.data.io.feedback_log import is_held_back
from mapsto.service.state import FeedbackRow, tables

__all__ = ["delete_rows", "leave_out_held_back", "let_go_held_back", "row_is_held_back"]

_feedback, _learners = tables.tables["feedback"], tables.tables["learners"]


def delete_rows(connection: sa.Connection, positions: list[int], *, sqlite: bool) -> None:
    """Delete labels.

    SQLite gives the last position again where its row is gone, and no learner would look there: a row without content holds it.
    """
    if not positions:
        return
    last = int(connection.execute(sa.select(sa.func.max(_feedback.c.position))).scalar() or 0)
    for first in range(0, len(positions), 500):
        connection.execute(sa.delete(_feedback).where(_feedback.c.position.in_(positions[first : first + 500])))
    if not sqlite:
        return
    connection.execute(sa.delete(_feedback).where(_feedback.c.model == "", _feedback.c.position < last))
    if last in positions:
        empty: dict[str, Any] = dict.fromkeys(
            ("model", "tenant", "version", "label", "answer", "package", "caller"), ""
        )
        place = {"position": last, "event": str(last), "time": time.time(), "features": b""}
        connection.execute(sa.insert(_feedback).values(**empty, **place))


def row_is_held_back(row: FeedbackRow) -> bool:
    """Whether its learner was never taught it, and judges versions by it."""
    return is_held_back(row.tenant, row.event)


def leave_out_held_back(connection: sa.Connection, model: str, rows: list[FeedbackRow]) -> None:
    """Take the rows out of the held-back labels of a learner's state; what it learnt from others stays as it is."""
    held = {(row.label, row.time, row.features) for row in rows if row_is_held_back(row)}
    if held:
        let_go_held_back(connection, model, lambda label, at, features: (label, at, features) in held)


def let_go_held_back(connection: sa.Connection, model: str, goes: Callable[[str, float, bytes], bool]) -> int:
    """Take held-back labels out of a learner's state, by label, time and features; how many went."""
    from mapsto.store.state import decode_state, encode_state

    content = connection.execute(sa.select(_learners.c.content).where(_learners.c.model == model)).scalar()
    state: Any = None if content is None else decode_state(bytes(content))
    if not isinstance(state, dict):
        return 0
    own: dict[str, Any] = state["held"]  # pyright: ignore[reportUnknownVariableType]
    features = np.asarray(own["features"], np.float32)
    times = own.get("times", [0.0] * len(own["labels"]))
    keys = [
        (str(label), float(at), row.tobytes()) for label, at, row in zip(own["labels"], times, features, strict=True)
    ]
    stay = [number for number, key in enumerate(keys) if not goes(*key)]
    if len(stay) == len(keys):
        return 0
    state["held"] = {
        name: features[stay] if name == "features" else [column[number] for number in stay]
        for name, column in own.items()
    }
    values = {"content": encode_state(state)}  # pyright: ignore[reportUnknownArgumentType]
    connection.execute(sa.update(_learners).where(_learners.c.model == model).values(values))
    return len(keys) - len(stay)
