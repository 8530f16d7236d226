"""Topics of a Kafka-compatible broker as a stream: a message is an event, a JSON object whose keys are columns.

Offsets by partition are its position. They lie in the checkpoint and nowhere else: no consumer group is joined and nothing is committed,
so that a stopped run goes on with the message after the last one that was learnt.
"""

from __future__ import annotations

import hashlib
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from mapsto.data.streams._json_events import HEAD, JsonEvents, object_in
from mapsto.data.streams._kafka_reader import Lost, Message, Offsets, TopicReader, check_brokers, check_settings
from mapsto.data.streams._roles import Roles
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block, ColumnType, Json, Stream, Task

if TYPE_CHECKING:
    from mapsto.data.streams._kafka_reader import Place

__all__ = ["Kafka"]

_IDLE_SECONDS = 0.9
"""A stream that waits gives an empty block at least every second."""


class Kafka(Stream):
    """The messages of one topic or of several, in the order of their timestamps.

    Of the partitions' next messages the earliest is taken, of equally early ones that of the topic named first, then of the lower
    partition. Each partition keeps its own order. A bounded read goes up to the ends that the topics have when it begins, and is the
    same each time; a followed one takes what comes, and its position says what was taken.

    Features are numbers where the first 100 messages hold nothing else, else words, as `jsonl` has them. A message's key is its event's
    id, its timestamp the time, where no column is named for them. An object with an id and the target alone is a label that comes late:
    it may stand in a topic of its own. A message that is no object, or has no value, is set aside.

    Raises `DataError` where the broker cannot be reached, there is no such topic, or messages that come next are no longer kept;
    `SpecError` for a column that is not there.

    >>> topic = Kafka(brokers="localhost:9092", topics=("doors",), security={"sasl.password": "hunter2"})
    Traceback (most recent call last):
    mapsto.errors.SpecError: streams.kafka.security: 'sasl.password' is a secret, and would be written into recipes and reports...
    """

    brokers: str = Field(min_length=1)
    """`HOST:PORT`, several with commas."""
    topics: tuple[str, ...] = Field(min_length=1)
    """The topics, such as one of features and one of labels."""
    partitions: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Of each topic; by default all."""
    target: str | None = None
    """The column to predict; without one there is nothing to learn, and events can only be answered."""
    task: Task = "classes"  # type: ignore[override] - a field where the base has a property
    """Whether the target holds classes, or numbers; a label that is no number is then set aside."""
    features: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The columns to predict from; by default all but the target, the id and the time."""
    id: str | None = None
    """The column that names an event, by which its label may come late; by default the message's key does."""
    time: str | None = None
    """The column of times: seconds of the epoch, or as in ISO 8601; by default the message's timestamp."""
    follow: bool = False
    """Whether to wait for more at the end, without end."""
    lost: Lost = "refuse"
    """What to do where messages that come next are no longer kept: refuse, or skip them with a warning."""
    security: dict[str, Any] = Field(default_factory=dict)
    """Settings of librdkafka for TLS and SASL; `env:NAME` takes one from an environment variable, as secrets must be."""

    @staticmethod
    def contract_fields(folder: Path) -> dict[str, Any]:
        """Topics of a broker in this process: questions, late labels, gaps, a broken message and a key that appears late."""
        from mapsto.data.streams._mock_broker import contract_topics

        brokers, topics = contract_topics(folder)
        return {"brokers": brokers, "topics": topics, "target": "open"}

    def __post_init__(self) -> None:
        check_settings(self.security, "streams.kafka.security")
        check_brokers(self.brokers, "streams.kafka.brokers")
        if not all(topic.strip() for topic in self.topics):
            raise SpecError("a topic has no name", where="streams.kafka.topics", hint="leave it out, or name it")
        if len({*self.topics}) < len(self.topics):
            raise SpecError("a topic is named twice", where="streams.kafka.topics", hint="name each once")
        numbers = self.partitions or ()
        if any(number < 0 for number in numbers) or len({*numbers}) < len(numbers):
            raise SpecError(
                f"{list(numbers)} are no partitions: {'one is below 0' if min(numbers) < 0 else 'one stands there twice'}",
                where="streams.kafka.partitions",
                hint="give numbers from 0 on, each once",
            )
        Roles(self.target, self.task, self.features, self.id, self.time).require_apart("streams.kafka")

    @property
    def labelled(self) -> bool:
        return self.target is not None

    @property
    def bounded(self) -> bool:
        return not self.follow

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        with self._reader() as reader:
            cluster = reader.cluster() or self.brokers
        return fingerprint_of(self, [cluster], without=("brokers", "security", "lost"))

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self, [self._content], without=("brokers", "security", "lost"))

    def columns(self) -> Mapping[str, ColumnType]:
        return {name: kind for name, kind in self._events.types.items() if kind is not None}

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        offsets, events = _offsets(position, self.topics), self._events
        with self._reader() as reader:
            first = {} if self.follow else self._first  # what is gone since is not missed by one that only follows
            reader.begin(first if offsets is None else offsets, None if self.follow else self._ends)
            given = clock.monotonic()
            while not reader.ended:
                messages = reader.take(size, _IDLE_SECONDS)
                if messages or (clock.monotonic() - given >= _IDLE_SECONDS and not reader.ended):
                    yield self._block(events, messages, _position(reader.next))
                    given = clock.monotonic()

    # -- private

    def _reader(self) -> AbstractContextManager[TopicReader]:
        return TopicReader.opened(self.brokers, self.security, self.topics, self.partitions, lost=self.lost)

    @cached_property
    def _marks(self) -> dict[Place, tuple[int, int]]:
        """What the topics held when this stream was first asked: it ends there, however often it is read."""
        with self._reader() as reader:
            return reader.marks()

    @property
    def _first(self) -> Offsets:
        return {place: low for place, (low, _) in self._marks.items()}

    @property
    def _ends(self) -> Offsets:
        return {place: high for place, (_, high) in self._marks.items()}

    @cached_property
    def _content(self) -> str:
        """A digest of all that is read."""
        whole = hashlib.sha256()
        for each in self._read(self._ends):
            parts = (repr((each.place, each.offset, each.time)).encode(), each.key, each.value)
            for part in parts:
                whole.update(b"-" if part is None else b"%d:" % len(part) + part)
        return whole.hexdigest()

    @cached_property
    def _events(self) -> JsonEvents:
        """What the first messages say."""
        first = [message for message, _ in zip(self._read(self._ends), range(HEAD), strict=False)]
        roles = Roles(self.target, self.task, self.features, self.id, self.time)
        where = f"kafka://{self.brokers}/{','.join(self.topics)}"
        named = self.id is not None or any(message.key is not None for message in first)
        return JsonEvents([_object(each) for each in first], roles, where, growing=self.follow, named=named)

    def _read(self, ends: Offsets) -> Iterator[Message]:
        """The messages up to the ends."""
        with self._reader() as reader:
            reader.begin(self._first, ends)
            while not reader.ended:
                yield from reader.take(HEAD, _IDLE_SECONDS)

    def _block(self, events: JsonEvents, messages: Sequence[Message], after: Json) -> Block:
        keys = ["" if message.key is None else _text(message.key) for message in messages]
        return events.block(
            [_object(message) for message in messages], after, ids=keys, times=[message.time for message in messages]
        )


def _text(key: bytes) -> str:
    """A key as an id: its text, or its bytes in hexadecimal where it is none."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key.hex()


def _object(message: Message) -> dict[str, Any] | str:
    """The object in a message, or why there is none."""
    return "a message without a value" if message.value is None else object_in(message.value)


def _position(offsets: Offsets) -> Json:
    """Offsets as a position, ``{"doors": {"0": 7}}``: of each topic, by partition, the message that comes next."""
    found: dict[str, Json] = {}
    for (topic, partition), offset in sorted(offsets.items()):
        cast("dict[str, Json]", found.setdefault(topic, {}))[str(partition)] = offset
    return found


def _offsets(position: Json, topics: Sequence[str]) -> Offsets | None:
    if position is None:
        return None
    try:
        found: Offsets = {
            (topic, int(partition)): int(offset)
            for topic, partitions in cast("dict[str, dict[str, int]]", position).items()
            for partition, offset in partitions.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{position} is no position in topics", hint="start another store") from error
    if others := {topic for topic, _ in found} - {*topics}:
        raise DataError(f"the position is one in {sorted(others)[0]}", hint="start another store")
    return found
