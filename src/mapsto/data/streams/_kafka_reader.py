"""Messages of Kafka topics in one order, read by their offsets, without a consumer group."""

from __future__ import annotations

import heapq
import logging
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from mapsto.errors import DataError, MissingExtra, SpecError, nearest
from mapsto_runtime.shown import few, short

__all__ = ["Lost", "Message", "Offsets", "Place", "TopicReader", "check_brokers", "check_settings"]

Lost = Literal["refuse", "skip"]
Place = tuple[str, int]
"""A topic and a partition of it."""
Offsets = dict[Place, int]

_ENVIRONMENT = "env:"
"""What begins a setting that an environment variable holds."""
_SETTING = re.compile(r"(security|sasl|ssl)\.[a-z0-9._]+|enable\.ssl\.certificate\.verification")
_SECRET = re.compile(r"password|secret|passphrase|key\.pem|private|oauthbearer\.config|jaas\.config")
_REACH_SECONDS = 10.0
_STALLED_SECONDS = 30.0
"""How long a bounded read waits for a message in all before it is given up."""
_PATIENCE_SECONDS = 5.0
"""How long a topic that is followed waits for the next message of a partition that does not answer, before it takes those of others."""
_PARTITIONS_SECONDS = 60.0
"""How often a topic that is followed is asked for partitions that are new."""
_MOST_WAITING = 2000
"""Messages of a partition that wait for those of others before it is paused; it goes on at a quarter of them."""


class Message(NamedTuple):
    """What a topic holds at an offset."""

    place: Place
    offset: int
    time: float
    """Seconds of the epoch; NaN where the broker does not say."""
    key: bytes | None
    value: bytes | None


def check_settings(settings: Mapping[str, Any], where: str) -> None:
    """Raises `SpecError` for a setting that is not about security, or for a secret that is written down. No message repeats a value."""
    for name, value in settings.items():
        if not _SETTING.fullmatch(name):
            raise SpecError(
                f"'{short(name)}' is no setting of security",
                where=where,
                hint="those of librdkafka that begin with security, sasl or ssl are taken",
            )
        if not isinstance(value, str | int | bool):
            raise SpecError(f"'{name}' is neither a text nor a number", where=where, hint="give one of them")
        if isinstance(value, str) and value.startswith(_ENVIRONMENT) and not value.removeprefix(_ENVIRONMENT).strip():
            raise SpecError(
                f"'{name}' names no environment variable",
                where=where,
                hint=f"give its name: {name}: {_ENVIRONMENT}NAME",
            )
        if _SECRET.search(name) and not (isinstance(value, str) and value.startswith(_ENVIRONMENT)):
            raise SpecError(
                f"'{name}' is a secret, and would be written into recipes and reports",
                where=where,
                hint=f"put it into an environment variable and give its name: {name}: {_ENVIRONMENT}NAME",
            )


def check_brokers(brokers: str, where: str) -> None:
    """Raises `SpecError` where an address is empty, or holds a user; the message does not repeat it."""
    hint = "give HOST:PORT, several with commas"
    if "@" in brokers:
        raise SpecError(
            "an address holds a user or a password, which would be written into recipes and reports",
            where=where,
            hint=f"{hint}; what names the user belongs into security: sasl.username, and sasl.password: {_ENVIRONMENT}NAME",
        )
    if not all(address.strip() for address in brokers.split(",")):
        raise SpecError("an address is empty", where=where, hint=hint)


class TopicReader:
    """The messages of topics, merged.

    Of the partitions' next messages the one with the least timestamp comes first; of equal ones that of the topic named first, then of
    the lower partition. A partition that has nothing more is not waited for. So a bounded read depends on what the topics hold alone, and
    one that is followed merges what is there and then takes what comes.

    Parameters
    ----------
    brokers
        ``HOST:PORT``, several with commas.
    settings
        Of security, as librdkafka names them.
    lost
        What is done where messages that are next are no longer there.
    """

    def __init__(
        self,
        brokers: str,
        settings: Mapping[str, Any],
        topics: Sequence[str],
        partitions: Sequence[int] | None,
        *,
        lost: Lost,
    ) -> None:
        self.where = f"kafka://{brokers}/{','.join(topics)}"
        self._topics, self._partitions, self._lost = topics, partitions, lost
        self._order = {topic: number for number, topic in enumerate(topics)}
        self._reasons: dict[str, None] = {}
        """What the client said of trouble since the last message."""
        self._secrets: list[str] = []
        self._client = self._connected(brokers, settings)
        self.next: Offsets = {}
        """The offsets of the messages that come next, given those that were taken."""
        self._fetched: Offsets = {}
        self._ends: Offsets | None = None
        self._waiting: dict[Place, deque[Message]] = {}
        self._heads: list[tuple[float, int, int]] = []
        self._awaited: set[Place] = set()
        """Partitions whose next message must be seen before another's is taken."""
        self._paused: set[Place] = set()
        self._troubled = False
        """Whether the broker cannot be reached."""
        self._waited = 0.0
        """Seconds that were spent waiting since the last message: not those in which its events were learnt from."""
        self._looked = time.monotonic()

    @classmethod
    @contextmanager
    def opened(
        cls,
        brokers: str,
        settings: Mapping[str, Any],
        topics: Sequence[str],
        partitions: Sequence[int] | None,
        *,
        lost: Lost,
    ) -> Generator[TopicReader]:
        """The reader, closed in the end."""
        reader = cls(brokers, settings, topics, partitions, lost=lost)
        try:
            yield reader
        finally:
            reader._client.close()

    def cluster(self) -> str:
        """The name that the cluster gave itself; empty where it has none."""
        return str(self._asked(lambda: self._client.list_topics(timeout=_REACH_SECONDS)).cluster_id or "")

    def marks(self) -> dict[Place, tuple[int, int]]:
        """Of each partition the offset of the first message that is kept, and the one after the last.

        Raises `DataError` where the broker cannot be reached, or a topic or partition is not there.
        """
        from confluent_kafka import TopicPartition

        places = [(topic, partition) for topic in self._topics for partition in self._found(topic)]
        return {
            place: self._asked(
                lambda at=place: self._client.get_watermark_offsets(TopicPartition(*at), timeout=_REACH_SECONDS)
            )
            for place in places
        }

    def begin(self, offsets: Mapping[Place, int], ends: Mapping[Place, int] | None) -> None:
        """Read from these offsets, up to the ends; None: whatever comes. Raises `DataError` where messages are lost."""
        self._ends = None if ends is None else dict(ends)
        self._add(offsets)

    @property
    def ended(self) -> bool:
        """Whether all was taken up to the ends."""
        return self._ends is not None and not self._awaited and not self._heads

    def take(self, most: int, seconds: float) -> list[Message]:
        """At most so many messages: as many as come within so many seconds, of topics that are followed those that are there."""
        taken: list[Message] = []
        end = time.monotonic() + seconds
        while len(taken) < most and not self.ended:
            follows = self._ends is None
            if self._heads and (not self._awaited or (follows and self._is_patient_no_more())):
                taken.append(self._pop())
                continue
            left = end - time.monotonic()
            if left <= 0 or (taken and follows and not self._poll(0.0)):
                break
            if not (taken and follows):
                self._poll(min(left, 0.1))
        return taken

    # -- private

    def _connected(self, brokers: str, settings: Mapping[str, Any]) -> Any:
        try:
            from confluent_kafka import Consumer, KafkaException
        except ImportError as error:
            raise MissingExtra("confluent-kafka", "kafka", where="streams.kafka") from error
        given = {
            "bootstrap.servers": brokers,
            "client.id": "mapsto",
            "group.id": "mapsto",  # which the client wants; nothing is committed, and no group is joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 16384,
        }
        log = logging.getLogger("mapsto.kafka")
        log.setLevel(logging.CRITICAL)  # what the client writes of itself; what matters comes as errors
        try:
            return Consumer({**given, **self._resolved(settings), "error_cb": self._heard}, logger=log)
        except KafkaException as error:
            raise SpecError(
                self._said(error.args[0]), where=f"{self.where}: security", hint="see librdkafka's settings"
            ) from None

    def _resolved(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in settings.items():
            if not isinstance(value, str) or not value.startswith(_ENVIRONMENT):
                found[name] = value
                continue
            variable = value.removeprefix(_ENVIRONMENT)
            if variable not in os.environ:
                raise SpecError(
                    f"the environment variable {variable} is not set",
                    where=f"{self.where}: {name}",
                    hint=f"set it: export {variable}=…",
                )
            found[name] = os.environ[variable]
            self._secrets.append(os.environ[variable])
        return found

    def _heard(self, error: Any) -> None:
        """The client's word on trouble that it goes on from by itself."""
        from confluent_kafka import KafkaError

        self._reasons[self._said(error)] = None
        if not self._troubled and error.code() != KafkaError._TRANSPORT:  # one connection of several
            self._troubled = True
            if self._ends is None and self.next:
                logging.getLogger("mapsto").warning(
                    "%s: the broker cannot be reached now (%s); it is tried again", self.where, self._said(error)
                )

    def _said(self, error: Any) -> str:
        """An error's words, without a secret."""
        text = str(error.str())
        for secret in self._secrets:
            text = text.replace(secret, "***") if secret else text
        return text

    def _asked(self, question: Callable[[], Any]) -> Any:
        """The broker's answer. Raises `DataError` where there is none."""
        from confluent_kafka import KafkaException

        try:
            return question()
        except KafkaException as error:
            self._client.poll(0.0)  # serves what the client has to say of it
            reasons = [*self._reasons] or [self._said(error.args[0])]
            raise DataError(
                f"the broker cannot be reached: {few(reasons, 3)}",
                where=self.where,
                hint="check that it runs, its address, and the settings of security",
            ) from None

    def _found(self, topic: str) -> list[int]:
        """The partitions of a topic that are read."""
        about = self._asked(lambda: self._client.list_topics(topic, timeout=_REACH_SECONDS)).topics[topic]
        if about.error is not None or not about.partitions:
            known = self._asked(lambda: self._client.list_topics(timeout=_REACH_SECONDS)).topics
            why = "there is no such topic" if about.error is None else self._said(about.error)
            raise DataError(f"'{short(topic)}': {why}", where=self.where, hint=nearest(topic, known))
        there = sorted(int(partition) for partition in about.partitions)
        missing = [number for number in self._partitions or () if number not in there]
        if missing:
            raise DataError(
                f"'{short(topic)}' has no partition {missing[0]}",
                where=self.where,
                hint=f"it has {len(there)}, from {there[0]} to {there[-1]}",
            )
        return there if self._partitions is None else sorted(self._partitions)

    def _add(self, offsets: Mapping[Place, int]) -> None:
        """Take up partitions, those of which no offset is given from their first message on."""
        for place, (low, _) in self.marks().items():
            if place in self.next:
                continue
            at = self._kept_from(place, offsets.get(place, low), low)
            if self._ends is not None and at > (end := self._ends.get(place, 0)):
                raise self._shorter(place, at, end)
            self.next[place] = self._fetched[place] = at
            self._waiting[place] = deque()
            if not self._is_done(place):
                self._awaited.add(place)
        self._assign()

    def _assign(self) -> None:
        """Fetch from where each partition was fetched to."""
        from confluent_kafka import TopicPartition

        self._client.assign([TopicPartition(*place, offset) for place, offset in self._fetched.items()])
        self._paused.clear()

    def _kept_from(self, place: Place, offset: int, low: int) -> int:
        """The offset to go on from, `low` being the first that is kept."""
        if offset >= low:
            return offset
        gone = f"partition {place[1]} of '{short(place[0])}': {low - offset} messages, {offset} to {low - 1}, are gone"
        if self._lost == "refuse":
            raise DataError(
                f"{gone}: the topic no longer keeps them",
                where=self.where,
                hint="let it keep messages for longer, and start another store; or go on without them: lost: skip",
            )
        logging.getLogger("mapsto").warning("%s: %s; the stream goes on with message %d", self.where, gone, low)
        return low

    def _shorter(self, place: Place, offset: int, end: int) -> DataError:
        return DataError(
            f"partition {place[1]} of '{short(place[0])}' has messages up to {end}, and was read up to {offset} before: "
            "it is another topic",
            where=self.where,
            hint="start another store",
        )

    def _is_done(self, place: Place) -> bool:
        """Whether nothing more is wanted of a partition."""
        return self._ends is not None and self._fetched[place] >= self._ends.get(place, 0)

    def _pop(self) -> Message:
        _, topic, partition = heapq.heappop(self._heads)
        place = (self._topics[topic], partition)
        waiting = self._waiting[place]
        message = waiting.popleft()
        self.next[place] = message.offset + 1
        if waiting:
            self._push(waiting[0])
        elif not self._is_done(place) and not self._is_at_end(place):
            self._awaited.add(place)
        if place in self._paused and len(waiting) <= _MOST_WAITING // 4:
            self._client.resume([self._at(place)])
            self._paused.discard(place)
        return message

    def _push(self, message: Message) -> None:
        moment = -math.inf if math.isnan(message.time) else message.time
        heapq.heappush(self._heads, (moment, self._order[message.place[0]], message.place[1]))

    def _is_at_end(self, place: Place) -> bool:
        """Whether a topic that is followed has nothing more now, by what came with its last messages."""
        if self._ends is not None:
            return False
        marks = self._client.get_watermark_offsets(self._at(place), cached=True)
        return marks is not None and self._fetched[place] >= marks[1]

    def _is_patient_no_more(self) -> bool:
        """Whether nothing has come for so long that a partition which does not answer is not waited for."""
        return self._waited > _PATIENCE_SECONDS

    def _at(self, place: Place) -> Any:
        from confluent_kafka import TopicPartition

        return TopicPartition(*place)

    def _poll(self, seconds: float) -> bool:
        """Fetch what has come; whether something has."""
        if self._ends is None and self._partitions is None:
            self._look_for_partitions()
        began = time.monotonic()
        first = self._client.poll(seconds)  # returns with the first; `consume` would wait for all
        messages: list[Any] = [] if first is None else [first, *self._client.consume(1000, timeout=0.0)]
        some = False
        for message in messages:
            some |= self._taken_in(message)
        if some:
            self._waited, self._troubled = 0.0, False
            self._reasons.clear()
        else:
            self._waited += time.monotonic() - began
            if self._waited > _STALLED_SECONDS and self._ends is not None and not self.ended:
                raise DataError(
                    f"nothing comes any more: {few([*self._reasons], 3) or 'the broker does not answer'}",
                    where=self.where,
                    hint="once the broker answers, the same command goes on",
                )
        for place, waiting in self._waiting.items():
            if len(waiting) > _MOST_WAITING and place not in self._paused and self._awaited:
                self._client.pause([self._at(place)])
                self._paused.add(place)
        return some

    def _taken_in(self, message: Any) -> bool:
        """Keep a message until it is its turn; whether it is one."""
        place = (str(message.topic()), int(message.partition() or 0))
        if message.error() is not None:
            self._trouble_with(place, message)
            return False
        offset = int(message.offset())
        if place not in self._fetched or offset < self._fetched[place] or self._is_done(place):
            return False
        if self._ends is not None and offset >= self._ends.get(place, 0):  # offsets can be left out
            self._fetched[place] = offset
            self._awaited.discard(place)
            return False
        kind, moment = message.timestamp()
        found = Message(place, offset, moment / 1000 if kind else math.nan, message.key(), message.value())
        waiting = self._waiting[place]
        waiting.append(found)
        self._fetched[place] = offset + 1
        self._awaited.discard(place)
        if len(waiting) == 1:
            self._push(found)
        return True

    def _trouble_with(self, place: Place, message: Any) -> None:
        from confluent_kafka import KafkaError

        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            self._awaited.discard(place)
            if self._ends is not None and place in self._fetched:
                self._fetched[place] = max(self._fetched[place], self._ends.get(place, 0))
            return
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            low, high = self.marks()[place]
            at = self._fetched[place]
            if at >= low:
                raise self._shorter(place, at, high)
            self._fetched[place] = self._kept_from(place, at, low)
            if not self._waiting[place]:
                self.next[place] = self._fetched[place]
            self._assign()
            return
        if error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            self._heard(error)
            return
        raise DataError(self._said(error), where=self.where, hint="see the broker's log")

    def _look_for_partitions(self) -> None:
        """Take up partitions that a topic got since."""
        if time.monotonic() - self._looked < _PARTITIONS_SECONDS or self._troubled:
            return
        self._looked = time.monotonic()
        try:
            new = [place for place in self.marks() if place not in self.next]
        except DataError as error:  # it may answer again in a minute
            logging.getLogger("mapsto").warning("%s", error)
            return
        if new:
            logging.getLogger("mapsto").info("%s: %s is new", self.where, few([f"{t}/{p}" for t, p in new], 5))
            self._add({})
