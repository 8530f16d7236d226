"""Each route says who may call it, and does as it says; tenants see nothing of each other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.routing import iter_route_contexts

from mapsto.errors import StoreError
from mapsto.service.hosts import Hosts
from mapsto.service.job_queue import NO_ROOM, Job
from mapsto.service.keys import SCOPES, Caller, Scope, ended
from mapsto.service.refusal import Refusal
from mapsto.service.routes import PUBLIC
from mapsto.service.served_model import ServedModel
from mapsto.service.service import Service
from mapsto.service.signing_keys import SigningKeys
from mapsto.service.state import FeedbackRow
from mapsto.service.tokens import Tokens
from tests.service.identity import AUDIENCE, ISSUER, Provider
from tests.service.in_process import InProcess, started

MODEL = "/v2/models/{name}"
ROUTES: dict[tuple[str, str], tuple[Scope, ...]] = {
    ("GET", "/v2"): ("predict",),
    ("GET", "/openapi.json"): ("predict",),
    ("GET", MODEL): ("predict",),
    ("GET", MODEL + "/ready"): ("predict",),
    ("GET", MODEL + "/versions"): ("predict",),
    ("GET", MODEL + "/versions/{version}"): ("predict",),
    ("GET", MODEL + "/versions/{version}/ready"): ("predict",),
    ("POST", MODEL + "/infer"): ("predict",),
    ("POST", MODEL + "/versions/{version}/infer"): ("predict",),
    ("POST", MODEL + "/adapt"): ("adapt",),
    ("GET", MODEL + "/jobs/{job}"): ("adapt",),
    ("POST", MODEL + "/feedback"): ("learn",),
    ("GET", MODEL + "/learner"): ("learn",),
    ("POST", MODEL + "/versions/{version}/promote"): ("admin",),
    ("POST", MODEL + "/rollback"): ("admin",),
    ("GET", "/metrics"): ("metrics", "admin"),
}
"""The scopes of which a caller needs one. A new route gets its line here, or stands among those for everybody in `PUBLIC`."""
OF_THE_HANDLER = {("POST", MODEL + path) for path in ("/infer", "/versions/{version}/infer", "/feedback")}
ROW = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [2, 0, 0]}
ROWS = [
    {"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [0, 1, 0, 0, 0, 1]},
    {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["y", "z"]},
]
JOB = "j-0000000000000000"
"""A job of the tenant `default`."""
BODIES: dict[str, Any] = {
    "infer": {"inputs": [ROW]},
    "adapt": {"inputs": ROWS},
    "feedback": {"label": "low", "inputs": [ROW]},
    "promote": {},
    "rollback": {},
}


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "keys.json").write_bytes(provider.key_set())
    tokens = Tokens(SigningKeys(str(folder / "keys.json")), audience=AUDIENCE, issuer=ISSUER)
    with started(folder, tokens=tokens, hosts=Hosts("127.0.0.1", ["mapsto.example"])) as running:
        job = Job(id=JOB, model="signs", tenant="default", way="logistic", shared=False, package="p")
        running.service.jobs.submit(job, own=1, all_=1)
        yield running


@pytest.fixture(scope="module")
def alice(service: InProcess) -> str:
    return service.key(name="alices-key", tenant="alices-team", scopes=SCOPES)


@pytest.fixture(scope="module")
def bob(service: InProcess) -> str:
    return service.key(name="bobs-key", tenant="bobs-team", scopes=SCOPES)


@pytest.fixture(scope="module")
def private(service: InProcess, alice: str) -> str:
    """A version of Alice's."""
    return service.ask("/v2/models/signs/adapt", BODIES["adapt"], key=alice).json()["model_version"]


def call(service: InProcess, route: tuple[str, str], version: str = "1", **more: Any) -> Any:
    method, path = route
    body = BODIES.get(path.rpartition("/")[2]) if method == "POST" else None
    return service.ask(path.format(name="signs", version=version, job=JOB), body, method=method, **more)


def test_every_route_has_a_decision(service: InProcess) -> None:
    found = {
        (method, str(route.path))
        for route in iter_route_contexts(service.routes.routes)
        for method in route.methods or {"MOUNT"}
    }
    assert len(found) > 10
    assert found | OF_THE_HANDLER == {("GET", path) for path in PUBLIC} | set(ROUTES)


@pytest.mark.parametrize("path", sorted(PUBLIC))
def test_what_is_for_everybody_tells_of_nothing(service: InProcess, path: str) -> None:
    answer = service.ask(path)
    assert answer.status == 200
    assert answer.json() in ({"live": True}, {"ready": True})


@pytest.fixture(scope="module")
def useless(service: InProcess, provider: Provider) -> dict[str, str | None]:
    """What opens nothing."""
    revoked = service.key(name="revoked", scopes=SCOPES)
    ended(service.state, "revoked")
    everything = " ".join(SCOPES)
    found = {
        "none": None,
        "empty": "",
        "wrong": "mapsto_" + "x" * 43,
        "expired": service.key(days=-1, scopes=SCOPES),
        "revoked": revoked,
        "an expired token": provider.token(scope=everything, exp=time.time() - 60).decode(),
        "a token of another": Provider().token(scope=everything).decode(),
    }
    service.service.keys.refresh()
    return found


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_only_who_may_is_answered(service: InProcess, useless: dict[str, str | None], route: tuple[str, str]) -> None:
    for name, key in useless.items():
        answer = call(service, route, key=key)
        assert answer.status == 401, name
        assert list(answer.json()) == ["error"], name
        assert answer.headers["www-authenticate"] == "Bearer", name
    allowed = ROUTES[route]
    others = service.key(scopes=[scope for scope in SCOPES if scope not in allowed])
    answer = call(service, route, key=others)
    assert (answer.status, list(answer.json())) == (403, ["error"])
    for scope in allowed:
        answer = call(service, route, key=service.key(scopes=[scope]))
        nothing_to_roll_back = route[1].endswith("rollback") and answer.status == 409
        assert answer.status == 200 or nothing_to_roll_back, answer.body


@pytest.mark.parametrize("route", [route for route in ROUTES if route[0] == "POST"], ids=" ".join)
def test_nothing_is_read_of_who_may_not(service: InProcess, route: tuple[str, str]) -> None:
    read: list[int] = []
    allowed = ROUTES[route]
    others = service.key(scopes=[scope for scope in SCOPES if scope not in allowed])
    for key, status in ((None, 401), (others, 403)):
        assert call(service, route, key=key, reading=read.append).status == status
    assert read == []


@pytest.mark.parametrize("route", [route for route in ROUTES if "{version}" in route[1]], ids=" ".join)
def test_a_private_version_is_not_there_for_another_tenant(
    service: InProcess, alice: str, bob: str, private: str, provider: Provider, route: tuple[str, str]
) -> None:
    token = provider.token(tenant="bobs-team", scope=" ".join(SCOPES)).decode()
    none = call(service, route, "a-000000000000", key=bob)
    for key in (bob, token):
        answer = call(service, route, private, key=key)
        assert answer.status == none.status == 404
        assert answer.json()["error"].replace(private, "a-000000000000") == none.json()["error"], (
            "as if it were not there"
        )
    owner = call(service, route, private, key=alice)
    assert owner.status == (409 if route[1].endswith("promote") else 200), "a private version answers only its owner"
    assert (
        call(service, route, private, key=provider.token(tenant="alices-team", scope=" ".join(SCOPES)).decode()).status
        == owner.status
    )


def test_lists_hold_only_what_is_ones_own(service: InProcess, alice: str, bob: str, private: str) -> None:
    for key, seen in ((alice, True), (bob, False)):
        listed = call(service, ("GET", MODEL + "/versions"), key=key).json()["versions"]
        assert (private in [each["version"] for each in listed]) is seen
        assert (private in call(service, ("GET", MODEL), key=key).json()["versions"]) is seen


def test_a_request_is_labelled_by_its_own_tenant_alone(service: InProcess, alice: str, bob: str) -> None:
    path = "/v2/models/signs/feedback"
    asked = service.ask("/v2/models/signs/infer", BODIES["infer"], key=alice).json()
    label = {"label": "low", "request_id": asked["parameters"]["request_id"]}
    answer, none = (service.ask(path, body, key=bob) for body in (label, {**label, "request_id": "0" * 28}))
    assert (answer.status, answer.json()) == (none.status, none.json())
    assert answer.status == 404
    assert service.ask(path, label, key=alice).json()["feedback"][0]["stored"]
    twice = {"label": "low", "inputs": [ROW], "idempotency_key": "the same"}
    for key in (alice, bob):
        assert service.ask(path, twice, key=key).json()["feedback"][0]["stored"], "it is not the other's"


def test_of_the_learner_a_tenant_sees_its_own_labels(service: InProcess, alice: str, private: str) -> None:
    carol = service.key(name="carols-key", tenant="carols-team")
    service.learnt("l-000000000001", "93 labels; 0.9 against 0.8")
    before = service.ask("/v2/models/signs/learner", key=alice).json()
    for _ in range(2):
        assert service.ask("/v2/models/signs/feedback", BODIES["feedback"], key=carol).status == 200
    service.state.append(
        [
            FeedbackRow(model="other", event=str(n), tenant="t", version="1", label="x", answer="", features=b"")
            for n in range(3)
        ]
    )
    own = service.ask("/v2/models/signs/learner", key=carol).json()
    assert own == {"position": 0, "behind": 2, "version": ""}
    assert service.ask("/v2/models/signs/learner", key=alice).json()["behind"] == before["behind"] + 2, (
        "an admin's view"
    )
    for key, note in ((carol, ""), (alice, "93 labels; 0.9 against 0.8")):
        listed = service.ask("/v2/models/signs/versions", key=key).json()["versions"]
        assert {each["version"]: each["note"] for each in listed if "note" in each}["l-000000000001"] == note


def test_nobody_is_named_to_another(service: InProcess, bob: str, private: str) -> None:
    for route in ROUTES:
        for version in ("1", private):
            body = call(service, route, version, key=bob).body.decode()
            assert "alice" not in body, route


def test_the_private_version_that_was_not_used_for_longest_goes_and_no_others(tmp_path: Any) -> None:
    with started(tmp_path) as service:
        a, b = (service.key(tenant=tenant) for tenant in "ab")
        object.__setattr__(service.service.limits, "versions", 2)

        def adapted(key: str) -> tuple[str, list[str]]:
            made = service.ask("/v2/models/signs/adapt", BODIES["adapt"], key=key).json()
            return made["model_version"], made["dropped"]

        (others, _), (first, _), (second, none) = adapted(b), adapted(a), adapted(a)
        assert none == []
        infer = ("POST", MODEL + "/versions/{version}/infer")
        assert call(service, infer, first, key=a).status == 200, "the older one is used"
        third, dropped = adapted(a)
        assert dropped == [second]
        assert [row.version for row in service.state.versions("signs")] == [others, first, third]
        assert [call(service, infer, each, key=a).status for each in (first, second, third)] == [200, 404, 200]
        another = Service([ServedModel("signs", tmp_path / "signs")], service.state, tmp_path / "another")
        service.state.note_use("signs", [third])
        caller = Caller("x", "a", frozenset(SCOPES))
        assert another._head(another._served("signs"), first, caller)[0] == first
        assert adapted(a)[1] == [first]
        another.refresh()
        with pytest.raises(Refusal) as refused:
            another._head(another._served("signs"), first, caller)
        assert refused.value.status == 404, "what made room answers in no worker"


def test_where_no_version_may_make_room_another_is_refused(tmp_path: Any) -> None:
    with started(tmp_path) as service:
        key = service.key()
        object.__setattr__(service.service.limits, "versions", 1)
        version = service.ask("/v2/models/signs/adapt", BODIES["adapt"], key=key).json()["model_version"]
        assert service.state.promote("signs", version, read="", why="")
        answer = service.ask("/v2/models/signs/adapt", BODIES["adapt"], key=key)
        assert (answer.status, answer.json()["error"]) == (409, NO_ROOM)
        assert [row.version for row in service.state.versions("signs")] == [version]


def test_where_the_state_cannot_be_read_nothing_fails_but_says_so(
    service: InProcess, alice: str, private: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = sa.create_engine("sqlite:////nowhere/at/all.sqlite")
    monkeypatch.setattr(service.state, "_engine", gone)
    monkeypatch.setattr(service.service.writer._state, "_engine", gone)  # type: ignore[union-attr]
    works = {("GET", "/v2"), ("GET", "/openapi.json"), ("GET", MODEL + "/ready"), ("GET", "/metrics")}
    works |= {("POST", MODEL + "/infer"), ("POST", MODEL + "/versions/{version}/infer")}
    for route in ROUTES:
        answer = call(service, route, key=alice)
        if route in works:
            assert answer.status == 200, route
            continue
        assert (answer.status, answer.headers["retry-after"] in ("5", "6")) == (503, True), route
        assert "the state cannot be" in answer.json()["error"]
        assert "nowhere" not in answer.json()["error"], "where it lies is nothing to clients"
    for read in (service.service.refresh, lambda: service.state.feedback("signs"), service.state.all_keys):
        with pytest.raises(StoreError, match="the state cannot be read now; look at its disk or server"):
            read()


def test_a_key_asks_no_oftener_than_it_may(service: InProcess) -> None:
    often = service.key(rate=0.5, burst=len(ROUTES))
    for route in ROUTES:
        assert call(service, route, key=often).status != 429
    for route in ROUTES:
        answer = call(service, route, key=often)
        assert (answer.status, list(answer.json())) == (429, ["error"])
        assert 1 <= int(answer.headers["retry-after"]) <= 3
    assert call(service, ("GET", "/v2"), key=service.key()).status == 200, "another key is not concerned"


def test_only_hosts_that_are_allowed_are_answered(service: InProcess, bob: str) -> None:
    for host in ("127.0.0.1:8080", "localhost", "[::1]:80", "MAPSTO.example.", ""):
        headers = {"host": host} if host else {}
        assert service.ask("/v2/health/live", **headers).status == 200, host
        assert service.ask("/v2", key=bob, **headers).status == 200, host
    for host in (
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "[::2]",
        "10.0.0.1",
        "localhost@evil",
        ":",
    ):
        for path in ("/v2/health/live", "/v2/models/signs/infer"):
            answer = service.ask(path, key=bob, host=host)
            assert answer.status == 421, host
            assert "--host-name" in answer.json()["error"]
    assert Hosts("127.0.0.1", ["*"]).knows(b"anything.example")
