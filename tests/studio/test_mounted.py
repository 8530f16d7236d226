"""The studio as a part of a service: who signs in, what each key may do, and that nothing of it is open without one."""

from __future__ import annotations

import http.cookiejar
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from mapsto.recipe.serving import Thresholds
from mapsto.service.access import Access
from mapsto.service.mounted import Mounted, mount
from mapsto.studio.application import POLICY
from tests.cli.packages import linear_package
from tests.command import mapsto
from tests.service.in_process import InProcess, started
from tests.service.served import serving
from tests.studio.test_pages import links_of, text_of
from tests.studio.test_service_pages import adapted, token_of

PAGES = ("/studio/service", "/studio/service/signs")
POSTS = ("/studio/service/signs/promote", "/studio/service/signs/rollback")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[InProcess]:
    with started(tmp_path) as found:
        settings = {"secret": "00" * 32, "alerts": Thresholds().model_dump(), "where": "http://127.0.0.1:8080"}
        each = Mounted(path="/studio", factory="mapsto.studio.mounted:mounted", settings=settings)
        mount(found.routes, Access(found.service.keys).caller, each)
        yield found


def signed_in(service: InProcess, *scopes: str) -> TestClient:
    studio = TestClient(service.routes)
    fields = {"form_token": token_of(studio.get("/studio/sign-in").text), "key": service.key(scopes=list(scopes))}
    answer = studio.post("/studio/sign-in", data=fields, follow_redirects=False)
    assert answer.status_code == 303
    said = answer.headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=strict" in said
    assert "Path=/studio" in said
    return studio


def test_nothing_is_shown_without_a_key(service: InProcess) -> None:
    studio = TestClient(service.routes)
    for page in PAGES:
        answer = studio.get(page, follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/studio/sign-in"
    token = token_of(studio.get("/studio/sign-in").text)
    for path in POSTS:
        assert studio.post(path, data={"form_token": token, "version": "1"}, follow_redirects=False).status_code == 303
    for path in ("/studio/", "/studio"):
        page = studio.get(path)
        assert page.status_code == 200
        assert "API key" in text_of(page.text)
        assert "signs" not in text_of(page.text)
        assert page.headers["content-security-policy"] == POLICY
    for path in ("/studio/run/runs/first", "/studio/compare", "/studio/advise"):
        assert studio.get(path).status_code == 404, "files are not read for those who have a key"


def test_a_key_that_is_not_known_signs_nobody_in(service: InProcess) -> None:
    studio = TestClient(service.routes)
    token = token_of(studio.get("/studio/sign-in").text)
    for key in ("mapsto_unknown", "", "a key; with=signs"):
        answer = studio.post("/studio/sign-in", data={"form_token": token, "key": key})
        assert answer.status_code == 401
        assert "key" in text_of(answer.text)
    assert studio.post("/studio/sign-in", data={"key": service.key()}).status_code == 403
    studio.cookies.set("mapsto_studio_key", "mapsto_unknown")
    assert studio.get("/studio/service", follow_redirects=False).headers["location"] == "/studio/sign-in"


def test_an_admin_promotes_and_others_do_not(service: InProcess) -> None:
    version = adapted(service)
    reader = signed_in(service, "predict")
    page = reader.get("/studio/service/signs").text
    assert reader.post(POSTS[0], data={"form_token": token_of(page), "version": version}).status_code == 403
    assert service.service.active("signs") == "1"
    admin = signed_in(service, "predict", "admin")
    page = admin.get("/studio/service/signs").text
    assert all(link.startswith("/studio/") for link in links_of(page))
    assert all(admin.get(link).status_code == 200 for link in links_of(page))
    done = admin.post(POSTS[0], data={"form_token": token_of(page), "version": version})
    assert f"Version {version} answers now." in text_of(done.text)
    assert service.service.active("signs") == version
    admin.post(POSTS[1], data={"form_token": token_of(page)})
    assert service.service.active("signs") == "1"


def test_who_signs_out_is_out_and_a_key_that_ends_too(service: InProcess) -> None:
    from mapsto.service.keys import ended

    studio = signed_in(service, "predict")
    page = studio.get("/studio/service")
    assert "signs" in text_of(page.text)
    studio.post("/studio/sign-out", data={"form_token": token_of(page.text)})
    assert studio.get("/studio/service", follow_redirects=False).status_code == 303
    studio = signed_in(service, "predict")
    for row in service.state.all_keys():
        ended(service.state, str(row["id"]))
    service.service.keys.refresh()
    assert studio.get("/studio/service", follow_redirects=False).status_code == 303


def test_the_cookie_opens_no_other_route(service: InProcess) -> None:
    studio = signed_in(service, "predict", "admin")
    assert studio.get("/v2").status_code == 401
    assert studio.post("/v2/models/signs/rollback").status_code == 401
    described = service.ask("/openapi.json", key=service.key()).body
    assert b"/studio" not in described


def test_replicas_under_ray_have_none(tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    said = mapsto("serve", tmp_path / "signs", "--port", 0, "--studio", "--ray", "local", code=2).err
    assert "mapsto studio --service URL --key KEY" in said


@pytest.mark.slow
def test_a_service_with_two_workers_shows_itself(tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    with serving(tmp_path / "signs", "--studio", "--admin", "--workers", "2", folder=tmp_path) as served:
        for _ in range(30):
            served.infer("signs", [[1.0, 0.0, 0.0]])
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        browser = urllib.request.build_opener(cookies)

        def post(path: str, **fields: str) -> str:
            content = urllib.parse.urlencode(fields).encode()
            with browser.open(f"{served.url}{path}", content, timeout=30) as answer:
                return answer.read().decode()

        def get(path: str) -> str:
            with browser.open(f"{served.url}{path}", timeout=30) as answer:
                return answer.read().decode()

        page = get("/studio/")
        for _ in range(4):  # whichever worker it is that made the form
            page = post("/studio/sign-in", form_token=token_of(get("/studio/sign-in")), key=served.key)
        said = text_of(page)
        assert "ready" in said
        assert "signs 30" in said, "requests of both workers"
        item = {"name": "input", "datatype": "FP32", "shape": [4, 3], "data": [5, 0, 0, 4, 0, 0, -5, 0, 0, -4, 0, 0]}
        body = {"inputs": [item], "parameters": {"labels": ["up", "up", "down", "down"], "shared": True}}
        status, made = served.call("/v2/models/signs/adapt", body)
        assert status == 200, made
        version = made["model_version"]
        token = token_of(get("/studio/service/signs"))
        assert f"Version {version} answers" in text_of(
            post("/studio/service/signs/promote", form_token=token, version=version)
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            post("/studio/service/signs/rollback", form_token="forged")
        assert refused.value.code == 403
        assert served.end() == 0
