"""The advisor's page: the answer of ``mapsto advise`` for data within reach, and why there is none for others."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mapsto.recipe.reader import parse_recipe
from mapsto.search.advisor import runs as lists
from mapsto.search.advisor.advice import advice, described, tree_of
from mapsto.search.advisor.question import question_of
from tests.studio.folders import client
from tests.studio.test_pages import text_of
from tests.studio.test_service_pages import token_of


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(120, 3))
    lines = [",".join(f"{value:.3f}" for value in row) + f",{'yes' if row[0] > 0 else 'no'}" for row in rows]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    place = tmp_path / "here" / "table.csv"
    place.write_text("a,b,c,open\n" + "\n".join(lines) + "\n", "utf-8")
    return place


def test_it_says_what_the_advisor_says(table: Path) -> None:
    question = question_of(str(table), "open", None, stream=False)
    task, missing = described(question)
    said = tree_of(advice(question, task, lists.shipped(), count=2, missing=missing))
    with client(table.parent, data=table, target="open") as studio:
        asking = studio.get("/advise").text
        assert f'value="{table}"' in asking
        fields = {"form_token": token_of(asking), "data": "table.csv", "target": "open", "count": "2"}
        page = studio.post("/advise", data=fields)
        files = re.findall(r'href="(/advise/recipe/[^"]+)"', page.text)
        texts = [studio.get(file).text for file in files]
        assert studio.get(files[0][:-1] + "7").status_code == 404
    assert page.status_code == 200
    shown = text_of(page.text)
    assert f"By runs on {said['known_tasks']} other tasks; the nearest is {said['nearest']}" in shown
    assert len(said["proposals"]) == len(texts) == 2
    for each, text in zip(said["proposals"], texts, strict=True):
        assert f"{', '.join(each['holes'].values())} {each['accuracy']:.1f} %" in shown
        for lean in each["leans_on"]:
            assert f"{100 * lean['weight']:.1f} %: {lean['task']}, {lean['recipe']}" in shown
        assert parse_recipe(text, where="advised.yaml").steps


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "no data are given"),
        ({"data": "nothing"}, "neither a path nor a data set"),
        ({"data": "other.csv"}, "no such file or folder"),
        ({"data": "../secret.csv", "target": "a"}, "outside of what the studio reads"),
        ({"data": "/etc/passwd"}, "outside of what the studio reads"),
        ({"data": "link.csv", "target": "a"}, "outside of what the studio reads"),
        ({"data": "{images: {folder: /etc}}"}, "no such file or folder"),
        ({"data": "a\0b"}, "no path"),
        ({"data": "table.csv"}, "a table needs the column that is predicted"),
        ({"data": "table.csv", "target": "shut"}, "there is no column 'shut'"),
        ({"data": "table.csv", "target": "open", "limit": "latency=1ms"}, "no advice on a limit of latency"),
    ],
)
def test_why_there_is_no_answer_is_said_beside_the_form(table: Path, fields: dict[str, str], said: str) -> None:
    (table.parent.parent / "secret.csv").write_text("a,b\n1,2\n", "utf-8")
    (table.parent / "link.csv").symlink_to(table.parent.parent / "secret.csv")
    with client(table.parent) as studio:
        token = token_of(studio.get("/advise").text)
        page = studio.post("/advise", data={"form_token": token, **fields})
    assert page.status_code == 422
    assert said in text_of(page.text)
    assert 'name="data"' in page.text, "the form is there again"


def test_a_form_of_somebody_else_is_refused(table: Path) -> None:
    with client(table.parent) as studio:
        assert studio.post("/advise", data={"data": "digits"}).status_code == 403
