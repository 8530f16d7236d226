"""A service loads packages as whoever it trusts signed them, at its start and when it loads them again."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from mapsto.errors import TrustError
from mapsto.nn.export.package_signing import make_key, sign_package
from mapsto.recipe.reader import parse_recipe
from mapsto.recipe.serving import Serving
from mapsto.service.served_model import ServedModel
from mapsto.service.service import Service
from mapsto.service.state import State
from mapsto.service.supervisor import Settings
from mapsto_runtime.signed_package import KEYS_VARIABLE, SIGNATURE, UNSIGNED_VARIABLE, Trust
from tests.cli.packages import linear_package
from tests.command import mapsto
from tests.service.served import serving

pytest.importorskip("model_signing", reason="the extra `sign` is not installed")

FIRST, SECOND = [[1.0, 0, 0], [-1, 0, 0]], [[-1.0, 0, 0], [1, 0, 0]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the package ``signs``, signed with ``ours.pem``, and keys."""
    monkeypatch.chdir(tmp_path)
    for name in (KEYS_VARIABLE, UNSIGNED_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    make_key(tmp_path / "ours.pem")
    make_key(tmp_path / "theirs.pem")
    sign_package(linear_package(tmp_path / "signs", FIRST, ("low", "high")), tmp_path / "ours.pem")
    return tmp_path


def replace(place: Path, *, key: str = "") -> None:
    """Another model in the package, which is signed again with a key, or not."""
    linear_package(place / "next", SECOND, ("low", "high"))
    for name in ("model.onnx", "manifest.json"):
        (place / "next" / name).replace(place / "signs" / name)
    (place / "next").rmdir()
    if key:
        sign_package(place / "signs", place / key)


def test_what_is_not_as_it_was_signed_is_not_served(place: Path) -> None:
    trust = Trust.of(["ours.pub.pem"])
    model = ServedModel("signs", place / "signs", trust=trust)
    assert model.verified.folder != place / "signs"
    assert model.own_head() is not None, "of the copy, while it is served"
    replace(place)
    assert model.own_head() is not None
    with pytest.raises(TrustError, match=r"changed: manifest\.json, model\.onnx"):
        ServedModel("signs", place / "signs", trust=trust)
    for words in (("--trusted-key", "ours.pub.pem"), ("--trusted-key", "theirs.pub.pem")):
        said = mapsto("serve", "signs", "--port", "0", "--state", "state.sqlite", *words, code=2).err
        assert "signed" in said


def test_what_is_loaded_again_is_verified_again(place: Path) -> None:
    state = State(place / "state.sqlite")
    service = Service([ServedModel("signs", place / "signs", trust=Trust.of(["ours.pub.pem"]))], state, place)
    first = service.model("signs")

    def reloaded() -> str:
        service.reload_soon()
        return " ".join(service.reload())

    replace(place)
    assert "goes on as it was" in reloaded()
    replace(place, key="theirs.pem")
    assert "not trusted" in reloaded()
    (place / "signs" / SIGNATURE).unlink()
    assert "not signed" in reloaded()
    assert service.model("signs") is first
    sign_package(place / "signs", place / "ours.pem")
    assert "is loaded again" in reloaded()
    assert service.model("signs").verified.signer
    state.close()


def test_a_recipe_may_ask_for_a_key_and_weakens_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "schema: 1\nsteps:\n  - networks.conv4: {}\nserve: {trusted_keys: [theirs.pub.pem], unsigned: warn, port: 0}\n"
    )
    assert Serving.model_validate(parse_recipe(text).serve).trusted_keys == ("theirs.pub.pem",)
    (place / "signs").rename(place / "package")
    (place / "recipe.yaml").write_text(text, encoding="utf-8")
    given: list[Settings] = []

    class Recorded:
        def __init__(self, settings: Settings, listening: Any, **_: Any) -> None:
            given.append(settings)

        def run(self, started: Any, *, note: Any) -> None:
            return

    monkeypatch.setattr("mapsto.service.supervisor.Supervisor", Recorded)
    assert "not trusted" in mapsto("serve", ".", "--state", "state.sqlite", code=2).err
    mapsto("serve", ".", "--state", "state.sqlite", "--trusted-key", "ours.pub.pem", code=0)
    assert given[-1].trust == Trust.of(["ours.pub.pem"])
    (place / "package" / SIGNATURE).unlink()
    assert "is not signed" in mapsto("serve", ".", "--state", "state.sqlite", code=0).err
    assert given[-1].trust == Trust.of(["theirs.pub.pem"], "warn")
    monkeypatch.setenv(KEYS_VARIABLE, "ours.pub.pem")
    assert "not signed" in mapsto("serve", ".", "--state", "state.sqlite", code=2).err


@pytest.mark.slow
def test_a_service_of_several_processes_serves_what_was_signed_alone(place: Path) -> None:
    with serving("signs", "--trusted-key", "ours.pub.pem", "--workers", "2", folder=place) as served:

        def label() -> str:
            found = served.infer("signs", [[1.0, 0, 0]])
            return found["outputs"][1]["data"][0]

        def said(text: str, end: float = 60.0) -> bool:
            until = time.monotonic() + end
            while time.monotonic() < until:
                if text in (place / "serve.log").read_text():
                    return True
                time.sleep(0.1)
            return False

        assert label() == "low"
        replace(place)
        served.process.send_signal(signal.SIGHUP)
        assert said("model 'signs' goes on as it was")
        assert said("'signs' does not learn until its package can be loaded")
        assert {label() for _ in range(20)} == {"low"}
        sign_package(place / "signs", place / "ours.pem")
        (place / "ours.pub.pem").unlink()  # it was read at the start
        served.process.send_signal(signal.SIGHUP)
        assert said("is loaded again")
        until = time.monotonic() + 30
        while {label() for _ in range(20)} != {"high"}:
            assert time.monotonic() < until
        places = Path(tempfile.gettempdir()).glob("mapsto-*-*")
        copies = [
            each for each in places if (each / "files" / "signs").is_dir() and f"-{os.getpid()}-" not in each.name
        ]
        assert len(copies) >= 3, "one for each process that loads it"
        assert served.end() == 0
        assert not [each for each in copies if each.exists()]
