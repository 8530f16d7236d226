"""What is written is there whole or not at all, and nothing is left beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapsto.atomic import new_file, new_folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_place_at_the_end(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "a" / "b.txt"
    for content in ("one", "two"):
        with new_file(target, durable=durable) as place:
            place.write_text(content, encoding="utf-8")
            assert not target.exists() or target.read_text(encoding="utf-8") == "one"
        assert target.read_text(encoding="utf-8") == content
    assert names(tmp_path) == ["a/b.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_the_old_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file").write_text("old", encoding="utf-8")
    with pytest.raises(error), new_file(tmp_path / "file") as place:
        place.write_text("half", encoding="utf-8")
        raise error
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(error), new_folder(tmp_path / "folder") as fresh:
        (fresh / "half").touch()
        raise error
    assert names(tmp_path) == ["file", "folder/old"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_replaces_the_one_before_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with new_folder(tmp_path / "to" / "folder") as fresh:
            (fresh / name).touch()
        assert names(tmp_path) == [f"to/folder/{name}"]


def test_the_old_folder_comes_back_where_the_new_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def failing(source: Path, to: Path) -> Path:
        if to == target and (source / "new").exists():
            raise OSError("the network drive is gone")
        return rename(source, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="gone"), new_folder(target) as fresh:
        (fresh / "new").touch()
    assert names(tmp_path) == ["folder/old"]


def test_of_two_that_write_one_folder_at_once_the_later_wins(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder") as first:
        (first / "first").touch()
        with new_folder(tmp_path / "folder") as second:
            (second / "second").touch()
    assert names(tmp_path) == ["folder/first"]
