"""``streams.bytes``: ranges, positions, a file that grows, and what a learner of tables makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapsto.data.streams.bytes import Bytes
from mapsto.data.text.byte_names import BYTE_NAMES, byte_of
from mapsto.errors import DataError, SpecError
from mapsto.mappings.online.softmax import Softmax


def read(stream: Bytes, position: object = None, size: int = 7) -> bytes:
    return bytes(byte_of(name) or 0 for block in stream.open(position, size=size) for name in block.y.tolist())  # type: ignore[arg-type]


def test_every_byte_has_a_name_of_its_own() -> None:
    assert len(set(BYTE_NAMES)) == 256
    assert [byte_of(name) for name in BYTE_NAMES] == list(range(256))
    assert not any(name.lower() in ("", "nan", "inf") or " " in name for name in BYTE_NAMES)


def test_parts_of_files_come_one_after_another(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(range(256)))
    other.write_bytes(b"to be\n\nor not")
    stream = Bytes(files=(str(one), str(other), str(one)), ranges=((250, None), (3, 8), (10, 10)))
    assert read(stream) == bytes(range(250, 256)) + b"be\n\no"
    assert [block.next for block in stream.open(size=4)] == [[0, 254], [0, 256], [1, 7], [1, 8]]
    assert read(stream, [1, 6]) == b"\no"


def test_a_range_whose_end_is_open_holds_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "short"
    file.write_bytes(b"abc")
    assert read(Bytes(files=(str(file),), ranges=((1, None),))) == b"bc"


def test_a_file_that_grows_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_bytes(b"first\nhal")
    stream = Bytes(files=(str(file),), follow=True)
    assert not stream.bounded
    blocks = stream.open(size=5)
    assert [len(next(blocks)) for _ in range(2)] == [5, 4]
    assert len(next(blocks)) == 0, "it waits, and says so within a second"
    with file.open("ab") as more:
        more.write(b"f a line")
    found = next(block for block in blocks if len(block))
    assert "".join(found.y.tolist()) == "f<0x20>a<0x20>l"
    file.write_bytes(b"")
    with pytest.raises(DataError, match="has become shorter"):
        list(zip(range(5), blocks, strict=False))


def test_mistakes_are_told(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"abc")
    with pytest.raises(SpecError, match="1 ranges for 2 files"):
        next(Bytes(files=(str(file), str(file)), ranges=((0, 1),)).open())
    with pytest.raises(SpecError, match="before it begins"):
        next(Bytes(files=(str(file),), ranges=((3, 1),)).open())
    with pytest.raises(SpecError, match="read by itself"):
        next(Bytes(files=("-", str(file))).open())
    with pytest.raises(DataError, match="of other files"):
        next(Bytes(files=(str(file),)).open(17))


def test_a_learner_of_tables_learns_how_often_bytes_come(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"aab" * 100)
    model = Softmax(stream=Bytes(files=(str(file),)))(None)
    scores = model.open().predict(next(Bytes(files=(str(file),)).open(size=1)))
    assert model.signature.classes == ("a", "b")
    assert scores[0, 0] == pytest.approx(2 / 3, abs=0.1)
