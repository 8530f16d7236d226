"""A broker that the client library runs in this process, on loopback: Kafka's protocol in memory, for the contract and for tests."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from mapsto.errors import DataError, MissingExtra

__all__ = ["Sent", "contract_topics", "mock_broker", "send"]

_SECONDS = 10.0
_numbers: Iterator[int] = count()


class Sent(NamedTuple):
    """A message to send."""

    topic: str
    value: bytes | None
    key: str | None = None
    partition: int = 0
    milliseconds: int = 0
    """Of the epoch; 0: now."""


@lru_cache(1)
def mock_broker() -> str:
    """Its address. It lives as long as this process. Raises `MissingExtra` without the client library."""
    try:
        from confluent_kafka import Producer
    except ImportError as error:
        raise MissingExtra("confluent-kafka", "kafka", where="streams.kafka") from error
    log = logging.getLogger("mapsto.kafka.mock")
    log.setLevel(logging.CRITICAL)
    producer: Any = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"}, logger=log)
    (broker,) = producer.list_topics(timeout=_SECONDS).brokers.values()
    mock_broker.__dict__["producer"] = producer  # the broker ends with it
    return f"{broker.host}:{broker.port}"


def send(brokers: str, messages: Sequence[Sent], **settings: Any) -> None:
    """Send messages in their order, and wait until they are stored. Raises `DataError` where one is not."""
    from confluent_kafka import Producer

    refused: list[str] = []

    def stored(error: Any, message: Any) -> None:
        if error is not None:
            refused.append(str(error.str()))

    producer: Any = Producer({"bootstrap.servers": brokers, **settings})
    for each in messages:
        producer.produce(
            each.topic,
            each.value,
            key=each.key,
            partition=each.partition,
            timestamp=each.milliseconds,
            on_delivery=stored,
        )
        producer.poll(0)
    if producer.flush(_SECONDS) or refused:
        raise DataError(f"not every message was stored: {refused[:1]}", where=brokers, hint="see the broker")


def contract_topics(folder: Path) -> tuple[str, tuple[str, ...]]:
    """The broker's address, and topics of its own for each call: one of doors in three partitions, one of labels that come late."""
    del folder  # what is made lies in no file
    brokers, number = mock_broker(), next(_numbers)
    doors, labels = f"doors-{number}", f"labels-{number}"
    sent: list[Sent] = []
    for event in range(130):
        found: dict[str, Any] = {
            "width": event / 4 if event % 5 else None,
            "about": {"colour": f"red {event % 3}"},
            **({"open": "yes"} if event % 2 else {}),
            **({"new": event} if event > 110 else {}),
        }
        value = None if event == 33 else b'{"width":' if event == 20 else json.dumps(found).encode()
        sent.append(Sent(doors, value, str(event), event % 3, 1_000_000 + 10 * (event // 2)))
        if event % 2 == 0 and event < 60:
            sent.append(Sent(labels, json.dumps({"open": "no"}).encode(), str(event), 0, 1_000_200 + 10 * event))
    send(brokers, sent)
    return brokers, (doors, labels)
