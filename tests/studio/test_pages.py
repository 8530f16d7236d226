"""Every page by a client: what it says, what its links lead to, and what becomes of input that is wrong."""

from __future__ import annotations

import io
import json
import os
import re
import time
import zipfile
from html import unescape
from pathlib import Path

import pytest

from mapsto.errors import SpecError
from mapsto.report.build import load
from mapsto.studio.application import POLICY
from mapsto.studio.results import Folders
from tests.studio.folders import FRONTIER, client, make_runs


def text_of(page: str) -> str:
    """What a reader sees of a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def links_of(page: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'(?:href|src)="([^"#]+)[^"]*"', page)]


def test_every_link_of_every_page_leads_somewhere(made: Path) -> None:
    with client(made) as studio:
        waiting, seen = ["/"], set[str]()
        while waiting:
            path = waiting.pop()
            seen.add(path)
            answer = studio.get(path)
            assert answer.status_code == 200, path
            if answer.headers["content-type"].startswith("text/html") and not path.startswith("/file/"):
                assert answer.headers["content-security-policy"] == POLICY
                assert not re.search(r"<[^>]+\son\w+=|<style|style=|<script(?![^>]*\ssrc=)", answer.text), path
                waiting += [each for each in links_of(answer.text) if each not in seen and each not in waiting]
    assert {"/", "/frontiers", "/streams", "/compare", "/run/runs/first", "/frontier/runs/found"} <= seen
    assert {"/static/report.css", "/static/studio.css", "/static/studio.js", "/static/uplot/uPlot.iife.min.js"} <= seen


def test_runs_are_listed_newest_first_with_their_figures(runs: Path) -> None:
    os.utime(runs / "first" / "report.json", (time.time() + 10, time.time() + 10))
    with client(runs) as studio:
        page = studio.get("/").text
        assert page.index("/run/runs/first") < page.index("/run/runs/second")
        said = text_of(page)
        assert "finished, 1 of 1 targets unmet" in said
        assert "fewer parameters" in said
        assert "runs/found" in said


def test_a_run_shows_its_recipe_its_steps_and_where_they_came_from(made: Path) -> None:
    report = load(made / "second")
    with client(made) as studio:
        page = studio.get("/run/runs/second").text
    said = text_of(page)
    for step in report["steps"]:
        assert step["key"] in said
        assert step["digest"] in said
    first, last = report["steps"][0], next(step for step in report["steps"] if step["label"] == "cut")
    assert 'class="chart flow' in page
    assert "measured: check, size" in said
    assert said.count(" from the store ") == 1 + sum(step["hit"] for step in report["steps"]) == 2, (
        "once of all, and of the first network"
    )
    row = page[page.index(f'id="step-{last["id"]}"') :].partition("</tr>")[0]
    assert f'href="#step-{last["inputs"][0]}"' in row
    assert f'href="#step-{first["id"]}"' in page
    assert "it reads digits" in said
    assert "train_loss" in said


def test_curves_are_numbers_too(made: Path) -> None:
    with client(made) as studio:
        page, found = studio.get("/run/runs/second").text, studio.get("/curves/runs/second").json()
    assert found["state"] == "finished"
    assert [each["id"] for each in found["charts"]] == re.findall(r'data-chart="([^"]+)"', page)
    for each in found["charts"]:
        assert len(each["data"]) == 1 + len(each["names"])
        assert len({len(column) for column in each["data"]}) == 1
        assert each["data"][0] == sorted(each["data"][0])
    losses = next(each for each in found["charts"] if each["y"] == "loss")
    assert all(value > 0 for value in losses["data"][1])


def test_a_report_is_shown_as_of_another_origin(made: Path) -> None:
    with client(made) as studio:
        answer = studio.get("/file/report.html/runs/first")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts")
    allowed = re.search(r"script-src 'sha256-([^']+)'", policy)
    assert allowed is not None
    assert f"script-src 'sha256-{allowed[1]}'" in unescape(answer.text), "the script that the page itself allows"


def test_a_stream_shows_how_good_it_was_and_what_it_kept(made: Path, tmp_path: Path) -> None:
    report = load(made / "stream")
    step = report["steps"][0]
    with client(made, store=str(tmp_path / "store")) as studio:
        listed = studio.get("/streams").text
        page = studio.get("/run/runs/stream").text
    assert "/run/runs/stream" in listed
    assert "/run/runs/first" not in listed
    assert 'aria-label="accuracy, % against event"' in page
    assert f"{step['account']['figures']['accuracy']:.1f} %" in text_of(page)
    assert "knows no run of it" in text_of(page)
    assert step["digest"] in text_of(page), "the end is in the report"
    published = [{"digest": f"{n:064x}", "n": n, "step": "model", "time": 1.8e9} for n in (1024, 2048)]
    run = {
        "id": "r",
        "name": "stream_table",
        "published": published,
        "seconds": 1,
        "seed": 0,
        "started": 1.8e9,
        "steps": [step],
    }
    (tmp_path / "store" / "runs").mkdir(parents=True, exist_ok=True)
    (tmp_path / "store" / "runs" / "r.json").write_text(json.dumps(run), "utf-8")
    with client(made, store=str(tmp_path / "store")) as studio:
        said = text_of(studio.get("/run/runs/stream").text)
    folder = (made / "stream").resolve()
    assert f"1,024 2027-01-15 08:00 UTC {1024:064x} --from {folder}@1024" in said
    assert f"--from {folder}@2048" in said
    assert "knows no run of it" not in said


def test_two_runs_side_by_side(made: Path) -> None:
    with client(made) as studio:
        page = studio.get("/compare", params={"a": "runs/first", "b": "runs/second"}).text
        same = text_of(studio.get("/compare", params={"a": "runs/first", "b": "runs/first"}).text)
    said = text_of(page)
    assert "only in a: epochs: 2" in said
    assert "only in b: epochs: 3" in said
    a, b = (load(made / name) for name in ("first", "second"))
    loss = [
        next(s for s in report["steps"] if s["path"] == "big.check")["report"]["metrics"]["loss"]["value"]
        for report in (a, b)
    ]
    assert f"big.check.loss {loss[0]:.6g} {loss[1]:.6g} {loss[1] - loss[0]:+.4g}" in said
    assert "the recipes are the same" in same
    assert "Figures that differ b less a None." in same


def test_runs_of_other_versions_are_compared_and_it_is_said(runs: Path) -> None:
    file = runs / "first" / "report.json"
    report = json.loads(file.read_text("utf-8"))
    report["environment"]["packages"]["mapsto"] = "0.0.1"
    report["seed"] = 7
    file.write_text(json.dumps(report), "utf-8")
    with client(runs) as studio:
        said = text_of(studio.get("/compare", params={"a": "runs/first", "b": "runs/second"}).text)
    assert "different versions of mapsto: 0.0.1 and" in said
    assert "different seeds: 7 and 0" in said


def test_a_frontier_is_drawn_by_the_axes_that_are_chosen(made: Path) -> None:
    with client(made) as studio:
        usual = studio.get("/frontier/runs/found").text
        other = studio.get(
            "/frontier/runs/found", params={"x": "small.size.bytes", "y": "small.check.accuracy", "point": 2}
        ).text
    assert 'aria-label="small.check.accuracy against small.size.macs"' in usual
    assert "other trials" in usual
    assert 'aria-label="small.check.accuracy against small.size.bytes"' in other
    assert "other trials" not in other, "nothing is known of their bytes"
    assert "Trial 2" in text_of(other)
    assert "mapsto run found/recipes/trial_002.yaml --threads 1" in text_of(other)
    assert "10 kB" in text_of(other)
    assert "the best by small.check.accuracy" in text_of(usual)


def test_a_point_has_its_recipe_and_where_it_was_run_its_package(runs: Path) -> None:
    ran = runs / "first" / "report.json"
    report = json.loads(ran.read_text("utf-8"))
    report["command"]["recipe"] = "found/recipes/trial_002.yaml"
    ran.write_text(json.dumps(report), "utf-8")
    (runs / "first" / "package").mkdir()
    (runs / "first" / "package" / "manifest.json").write_text("{}", "utf-8")
    with client(runs) as studio:
        recipe = studio.get("/recipe/runs/found", params={"point": 2})
        page = studio.get("/frontier/runs/found", params={"point": 2}).text
        archive = studio.get("/package/runs/first")
        unmade = studio.get("/frontier/runs/found", params={"point": 1}).text
    assert recipe.text.startswith("schema: 1")
    assert 'filename="trial_002.yaml"' in recipe.headers["content-disposition"]
    assert "/package/runs/first" in page
    assert zipfile.ZipFile(io.BytesIO(archive.content)).namelist() == ["manifest.json"]
    assert "run it to have one" in text_of(unmade)


def test_a_run_that_goes_on_is_shown_by_its_logs(runs: Path) -> None:
    log = runs / "new" / "logs" / "01-big" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,train_loss,lr\n1,2.5,0.1\n2,2.0,0.1\n3,1.5,0.1\n4,1", "utf-8")
    with client(runs) as studio:
        listed = text_of(studio.get("/").text)
        page = studio.get("/run/runs/new").text
        found = studio.get("/curves/runs/new").json()
        old = time.time() - 900
        os.utime(log, (old, old))
        quiet = text_of(studio.get("/run/runs/new").text)
    assert "Not finished new running" in listed
    assert "data-follow" in page
    assert "train_loss 1.5" in text_of(page)
    assert found["state"] == "running"
    assert found["steps"][0]["row"] == 3, "the last line is half written"
    assert found["charts"][0]["data"] == [[1, 2, 3], [2.5, 2.0, 1.5]]
    assert "no new row for 15 min" in quiet


def test_a_run_that_is_run_again_is_followed_until_its_report_is_new(runs: Path) -> None:
    report = runs / "first" / "report.json"
    os.utime(report, (time.time() - 500, time.time() - 500))
    with client(runs) as studio:
        assert "data-follow" in studio.get("/run/runs/first").text
        os.utime(report, (time.time() + 1, time.time() + 1))
        assert "data-follow" not in studio.get("/run/runs/first").text


# ------------------------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/run/runs/nothing", 404, "there is no such folder"),
        ("/run/elsewhere/first", 404, "Shown are results in runs"),
        ("/run/runs", 404, "holds no report.json"),
        ("/run/runs/found", 404, "holds no report.json"),
        ("/frontier/runs/first", 404, "holds no frontier.json"),
        ("/frontier/runs/found?point=7", 404, "Its points are the trials 1, 2"),
        ("/frontier/runs/found?point=one", 400, "point"),
        ("/recipe/runs/found?point=7", 404, "no point of the frontier"),
        ("/package/runs/first", 404, "made no package"),
        ("/file/secret.txt/runs/first", 404, "has no file 'secret.txt'"),
        ("/compare?a=runs/first&b=runs/nothing", 404, "there is no such folder"),
        ("/nothing", 404, "there is no such page"),
        ("/run/runs/%00", 404, "no path of a folder"),
    ],
)
def test_what_is_not_there_is_said(made: Path, path: str, status: int, said: str) -> None:
    with client(made) as studio:
        answer = studio.get(path)
    assert answer.status_code == status
    assert said in text_of(answer.text)
    assert answer.headers["content-security-policy"] == POLICY


@pytest.mark.parametrize("way", ["..%2Fsecret", "first%2F..%2F..%2Fsecret", "link", "%2E%2E/secret", "/etc"])
def test_no_path_leaves_the_folder(runs: Path, way: str) -> None:
    secret = runs.parent / "secret"
    secret.mkdir()
    (secret / "report.json").write_text('{"schema": 1, "title": "s3cret"}', "utf-8")
    (runs / "link").symlink_to(secret)
    with client(runs) as studio:
        assert "s3cret" not in studio.get("/").text
        for page in ("run", "curves", "frontier", "file/report.json", "package"):
            answer = studio.get(f"/{page}/runs/{way}")
            assert answer.status_code == 404, page
            assert "s3cret" not in answer.text
        assert studio.get("/compare", params={"a": f"runs/{way}"}).status_code == 404


def test_a_link_to_a_file_elsewhere_is_not_followed(runs: Path) -> None:
    secret = runs.parent / "secret.txt"
    secret.write_text("s3cret", "utf-8")
    (runs / "first" / "recipe.yaml").unlink()
    (runs / "first" / "recipe.yaml").symlink_to(secret)
    with client(runs) as studio:
        answer = studio.get("/file/recipe.yaml/runs/first")
    assert answer.status_code == 404
    assert "s3cret" not in answer.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["second", "stream"])
def test_a_report_that_lacks_something_is_shown_without_it_or_refused(runs: Path, name: str) -> None:
    file = runs / name / "report.json"
    whole = json.loads(file.read_text("utf-8"))
    place = next(place for place, step in enumerate(whole["steps"]) if step["curves"])
    of_report = [(key, ()) for key in whole]
    of_step = [(key, (place,)) for key in whole["steps"][place]]
    refused = 0
    with client(runs) as studio:
        for key, at in (*of_report, *of_step):
            for value in (None, [], "x", 7):
                report = json.loads(json.dumps(whole))
                (report["steps"][at[0]] if at else report)[key] = value
                file.write_text(json.dumps(report), "utf-8")
                os.utime(file, (time.time() + 5, time.time() + 5))
                for page in ("/", f"/run/runs/{name}", f"/curves/runs/{name}", f"/compare?a=runs/first&b=runs/{name}"):
                    status = studio.get(page).status_code
                    assert status == 200 or (status == 422 and page != "/"), (key, value, page)
                    refused += status == 422
    assert refused > 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a report"),
        ("[]", "it holds a list"),
        ('{"schema": 9}', "written by a later mapsto"),
        ('{"schema": 1, "name": "x"}', "it lacks title"),
        (
            '{"schema": 1, "name": "x", "title": "", "wall_s": 1, "steps": [{}], "summary": {}, "targets": []}',
            "not a whole report",
        ),
    ],
)
def test_a_broken_report_is_said_and_the_others_are_shown(runs: Path, text: str, said: str) -> None:
    (runs / "first" / "report.json").write_text(text, "utf-8")
    with client(runs) as studio:
        listed, one = studio.get("/"), studio.get("/run/runs/first")
        both = studio.get("/compare", params={"a": "runs/first", "b": "runs/second"})
    assert listed.status_code == 200
    assert "/run/runs/second" in listed.text
    assert said in text_of(listed.text)
    for answer in (one, both):
        assert answer.status_code == 422
        assert said in text_of(answer.text)


@pytest.mark.parametrize(
    ("text", "said"),
    [("nothing", "not the outcome"), ('{"schema": 2}', "a later mapsto"), ('{"schema": 1}', "not a whole report")],
)
def test_a_broken_frontier_is_said(runs: Path, text: str, said: str) -> None:
    (runs / "found" / "frontier.json").write_text(text, "utf-8")
    with client(runs) as studio:
        assert said in text_of(studio.get("/frontiers").text)
        answer = studio.get("/frontier/runs/found")
    assert answer.status_code == 422
    assert said in text_of(answer.text)


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    with client(tmp_path) as studio:
        assert "mapsto run demo --quick" in text_of(studio.get("/").text)
        assert "mapsto search search_digits" in text_of(studio.get("/frontiers").text)
        assert "mapsto run stream_table --quick" in text_of(studio.get("/streams").text)
        assert "Two finished runs are needed" in text_of(studio.get("/compare").text)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such folder"):
        Folders([tmp_path / "runs"])


def test_what_a_file_says_is_text_and_no_markup(runs: Path) -> None:
    file = runs / "found" / "frontier.json"
    file.write_text(json.dumps(FRONTIER | {"name": "<script>alert(1)</script>", "warnings": ["<img src=x>"]}), "utf-8")
    with client(runs) as studio:
        page = studio.get("/frontier/runs/found").text
    assert "<script>alert" not in page
    assert "<img" not in page


@pytest.mark.slow
def test_runs_that_are_made_now_are_shown_as_those_that_are_kept_for_tests(tmp_path: Path) -> None:
    make_runs(tmp_path)
    with client(tmp_path / "runs") as studio:
        page = studio.get("/run/runs/second").text
        said = text_of(studio.get("/compare", params={"a": "runs/first", "b": "runs/second"}).text)
    assert "data-follow" not in page, "it has come to its end"
    assert "data-chart" in page
    assert "only in b: epochs: 3" in said
