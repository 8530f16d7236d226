"""``mapsto stream`` of MovieLens' files, and what it recommends with a model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.command import mapsto

from mapsto import streams
from mapsto.cli.stream.sources import node_of_file
from mapsto.errors import DataError, SpecError

RECOMMEND = ("--learner", "online.recommend")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MAPSTO_DATA", str(tmp_path / "data"))


def u_data(count: int = 200) -> Path:
    draw = random.Random(0)
    lines = [
        f"{draw.randrange(1, 20)}\t{draw.randrange(1, 40)}\t{draw.randrange(1, 6)}\t{880_000_000 + draw.randrange(1000)}"
        for _ in range(count)
    ]
    Path("u.data").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path("u.data")


def test_ratings_are_learnt_and_items_recommended() -> None:
    u_data()
    said = mapsto("stream", "u.data", "--target", "rating", *RECOMMEND, code=0)
    assert "rmse" in said.out
    assert "hit rate" in said.out
    Path("users.csv").write_text("user\n3\nnobody\n", encoding="utf-8")
    best = mapsto("stream", "users.csv", "--from", "runs/u", "--top", 4, code=0).out.splitlines()
    assert best[0] == "event,user,place,item,rating,at_least"
    assert [line.split(",")[:3] for line in best[1:5]] == [["1", "3", str(place)] for place in (1, 2, 3, 4)]
    rated = {line.split("\t")[1] for line in Path("u.data").read_text().splitlines() if line.split("\t")[0] == "3"}
    assert not rated & {line.split(",")[3] for line in best[1:5]}
    mapsto("stream", "users.csv", "--from", "runs/u", "--top", 4, "--predictions", "best.jsonl", code=0)
    first, second = map(json.loads, Path("best.jsonl").read_text().splitlines())
    assert (first["user"], second["user"], len(second["items"])) == ("3", "nobody", 4)
    assert (first["known"], second["known"]) == (True, False)
    answers = mapsto("stream", "u.data", "--from", "runs/u", code=0).out.splitlines()
    assert len(answers) == 201
    assert 1.0 <= float(answers[1].split(",")[2]) <= 5.0


@pytest.mark.parametrize(
    ("header", "target", "more", "task"),
    [
        ("user,item,stars,time", "stars", (), "values"),
        ("user,item,stars,time", "item", (), "classes"),
        ("guest,dish,stars,time", "stars", ("--set", "user=guest", "--set", "item=dish"), "values"),
        ("user,dish,stars,time", "dish", (), "classes"),
        ("user,item,stars,time", "stars", ("--task", "classes"), "classes"),
    ],
)
def test_columns_say_whether_ratings_or_choices_are_learnt(
    header: str, target: str, more: tuple[str, ...], task: str
) -> None:
    rows = [f"{1000 + n % 7},{5000 + 7 * n % 60},{1 + n % 5},{n}" for n in range(120)]
    Path("t.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    said = mapsto("stream", "t.csv", "--target", target, *RECOMMEND, *more, "--json", code=0)
    assert json.loads(said.out.splitlines()[-1])["summary"]["task"] == task


def test_what_was_decided_of_the_target_and_columns_that_are_not_known_are_said() -> None:
    rows = [f"{n % 7},{n % 20},{1 + n % 5},{n}" for n in range(60)]
    Path("t.csv").write_text("\n".join(["guest,dish,stars,when", *rows]) + "\n", encoding="utf-8")
    said = mapsto("stream", "t.csv", "--target", "stars", *RECOMMEND, code=2).err
    assert "'stars' is taken for the items that users choose" in said
    assert "--set user=COLUMN --set item=COLUMN" in said
    said = mapsto("stream", "t.csv", "--target", "stars", "--task", "values", *RECOMMEND, code=2).err
    assert "step 1, online.recommend: which columns hold user and item" in said
    assert "--set user=COLUMN --set item=COLUMN" in said
    Path("t.csv").write_text("\n".join(["user,item,stars,when", *rows]) + "\n", encoding="utf-8")
    said = mapsto("stream", "t.csv", "--target", "stars", *RECOMMEND, code=0).err
    assert "so that ratings are learnt" in said
    assert "--task values for ratings" in mapsto("stream", "-", "--target", "stars", *RECOMMEND, code=2).err


def test_users_who_are_unknown_missing_or_have_had_all_are_told() -> None:
    rows = [f"ann,{item},{1 + item % 5},1" for item in range(9)] + ["bob,1,5,1", "bob,2,5,1"]
    Path("t.csv").write_text("\n".join(["user,item,stars,when", *rows]) + "\n", encoding="utf-8")
    mapsto("stream", "t.csv", "--target", "stars", *RECOMMEND, code=0)
    Path("users.csv").write_text('user\nann\nbob\neve\n""\n', encoding="utf-8")
    said = mapsto("stream", "users.csv", "--from", "runs/t", "--top", 3, code=0)
    assert [line.split(",")[1] for line in said.out.splitlines()[1:]] == ["bob"] * 3 + ["eve"] * 3
    assert "the user is missing: event 4" in said.err
    assert "unknown users get what most users like: eve" in said.err
    assert "who have had every item: ann" in said.err


def test_what_top_is_not_for() -> None:
    u_data()
    assert "--from" in mapsto("stream", "u.data", "--target", "rating", "--top", 3, code=2).err
    Path("t.csv").write_text(
        "x,y\n" + "".join(f"{n},{'no' if n % 2 else 'yes'}\n" for n in range(20)), encoding="utf-8"
    )
    mapsto("stream", "t.csv", "--target", "y", "--learner", "online.softmax", code=0)
    assert "online.recommend" in mapsto("stream", "t.csv", "--from", "runs/t", "--top", 3, code=2).err


def test_files_of_movielens_are_known_by_name_and_first_line() -> None:
    u_data()
    assert node_of_file("u.data", None, {"target": "item"}) == {"movielens": {"file": "u.data", "target": "item"}}
    Path("ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3.5,100\n", encoding="utf-8")
    assert "movielens" in node_of_file("ratings.csv", None, {})
    Path("ratings.csv").write_text("guest,stars\na,3\n", encoding="utf-8")
    assert "csv" in node_of_file("ratings.csv", None, {"target": "stars"})
    with pytest.raises(SpecError, match="rating or item"):
        node_of_file("u.data", None, {"target": "stars"})
    with pytest.raises(SpecError, match="--id"):
        node_of_file("u.data", None, {"target": "rating", "id": "user"})


def test_each_form_of_movielens_gives_the_same_events() -> None:
    rows = [(1, 2, 3.0, 20), (2, 3, 4.0, 10), (1, 3, 5.0, 20)]
    forms = {"u.data": "\t", "ratings.dat": "::", "ratings.csv": ","}
    read = []
    for name, separator in forms.items():
        lines = [separator.join(map(str, row)) for row in rows]
        header = ["userId,movieId,rating,timestamp"] if name == "ratings.csv" else []
        Path(name).write_text("\n".join([*header, *lines]) + "\n", encoding="utf-8")
        block = next(streams.movielens(file=name).open())
        read.append(
            [block.x[column].tolist() for column in ("user", "item")] + [block.y.tolist(), block.times.tolist()]
        )
    assert read == [[["2", "1", "1"], ["3", "2", "3"], [4.0, 3.0, 5.0], [10.0, 20.0, 20.0]]] * 3
    (block,) = streams.movielens(file="u.data", target="item", label_delay=1).open()
    assert [*block.x] == ["user"]
    assert block.y[block.has_y].tolist() == ["3", "2", "3"]


def test_what_is_missing_or_broken_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ml-100k\.zip from https://grouplens") as raised:
        next(streams.movielens().open())
    assert str(tmp_path / "data" / "ml-100k" / "u.data") in str(raised.value)
    Path("u.data").write_text("1\t2\t3\t4\n1\tx\t3\t4\n", encoding="utf-8")
    with pytest.raises(DataError, match="no rating"):
        next(streams.movielens(file="u.data").open())
    Path("u.data").write_text("hello\n", encoding="utf-8")
    with pytest.raises(DataError, match="four columns"):
        next(streams.movielens(file="u.data").open())
