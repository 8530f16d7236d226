"""The studio as people see it, in Chromium: light, dark, narrow and without JavaScript; axe-core finds nothing serious."""

from __future__ import annotations

import asyncio
import csv
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from mapsto.service.hosts import Hosts
from mapsto.studio.application import application
from mapsto.studio.results import Folders
from mapsto.studio.services import Services
from mapsto.studio.site import Studio
from tests.browser import CHROMIUM
from tests.studio.test_service_pages import METRICS

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text("utf-8")
PAGES = ("/", "/run/runs/first", "/frontiers", "/frontier/runs/found?point=2", "/streams", "/compare?a=runs/first&b=runs/second",
         "/advise", "/service", "/service/signs", "/run/runs/nothing")  # fmt: skip


class Answering:
    """What a service answers, as its client gives it."""

    def ready(self) -> bool:
        return True

    def models(self) -> list[str]:
        return ["signs"]

    def metrics(self) -> str:
        return METRICS

    def versions(self, model: str) -> dict[str, Any]:
        made = {
            "version": "l-1",
            "kind": "learned",
            "parent": "1",
            "created": 1.8e9,
            "note": "92 of 100 right",
            "private": False,
        }
        return {
            "active": "1",
            "versions": [{"version": "1", "kind": "package", "package": "5f0c" * 16}, made | {"package": "5f0c" * 16}],
        }

    def learner(self, model: str) -> dict[str, Any]:
        return {"position": 100, "behind": 3, "version": "l-1", "note": "92 of 100 right"}


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """The address of a studio in this process."""
    client: Any = Answering()
    services = Services(client=lambda request: client, where="http://127.0.0.1:8080")
    app = application(Studio(folders=Folders([runs]), services=services), hosts=Hosts("127.0.0.1"))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def page_of(chromium: Any, **options: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page, and what its console says of errors."""
    context = chromium.new_context(**options)
    said: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(f"loads {request.url}") if "127.0.0.1" not in request.url else None)
    yield page, said
    context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)])
def test_pages_fit_are_accessible_and_load_nothing_from_elsewhere(
    made: Path, chromium: Any, scheme: str, width: int
) -> None:
    options: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with served(made) as address, page_of(chromium, **options) as (page, said):
        for path in PAGES:
            page.goto(address + path)
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            page.evaluate(AXE)
            violations = page.evaluate("axe.run().then(found => found.violations)")
            serious = [
                (each["id"], [node["html"][:200] for node in each["nodes"]])
                for each in violations
                if each["impact"] in ("serious", "critical")
            ]
            assert serious == [], path
        assert [each for each in said if "404" not in each] == [], (
            "the missing run is a 404, and no other error is said"
        )
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(", "))) < 300) is (scheme == "dark")


def test_curves_become_interactive_within_the_policy(made: Path, chromium: Any) -> None:
    with served(made) as address, page_of(chromium, viewport={"width": 1200, "height": 800}) as (page, said):
        page.goto(f"{address}/run/runs/second")
        page.wait_for_selector("figure[data-drawn] canvas")
        drawn = page.locator("figure[data-drawn]").count()
        assert drawn == page.locator("figure[data-chart]").count() > 0
        figure = page.locator("figure[data-drawn]").first
        assert figure.locator("svg").first.is_hidden()
        over = figure.locator(".u-over")
        over.hover()
        legend = figure.locator(".u-legend").inner_text()
        assert "train_loss" in legend
        assert any(letter.isdigit() for letter in legend), "the value under the pointer is read off"
        assert said == []


def test_without_javascript_every_chart_is_a_drawing_and_a_point_can_be_picked(made: Path, chromium: Any) -> None:
    with served(made) as address, page_of(chromium, java_script_enabled=False) as (page, _):
        page.goto(f"{address}/run/runs/second")
        charts = page.locator("figure[data-chart] svg")
        assert charts.count() > 0
        assert all(charts.nth(place).is_visible() for place in range(charts.count()))
        page.goto(f"{address}/frontier/runs/found")
        page.get_by_role("link", name="trial 2").click()
        assert page.get_by_role("heading", name="Trial 2").is_visible()
        page.get_by_label("Across").select_option("small.size.bytes")
        page.get_by_role("button", name="Draw").click()
        assert page.get_by_role("heading", name="Trial 2").is_visible(), "it stays picked"
        assert page.get_by_role("img", name="small.check.accuracy against small.size.bytes").is_visible()


def test_a_run_is_followed_until_its_report_is_there(runs: Path, chromium: Any) -> None:
    log = runs / "new" / "logs" / "01-big" / "metrics.csv"
    log.parent.mkdir(parents=True)

    def write(count: int) -> None:
        with log.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["step", "train_loss"], *([n, 3.0 / n] for n in range(1, count + 1))])

    write(3)
    with served(runs) as address, page_of(chromium) as (page, said):
        page.goto(f"{address}/run/runs/new")
        page.wait_for_selector("figure[data-drawn] canvas")
        assert page.locator("[data-without-script]").is_hidden()
        assert "3" in page.locator("[data-steps]").inner_text()
        write(40)
        page.get_by_role("cell", name="40", exact=True).wait_for(timeout=10_000)
        time.sleep(0.05)
        (runs / "new" / "report.json").write_bytes((runs / "first" / "report.json").read_bytes())
        page.wait_for_selector("#steps", timeout=10_000)
        assert "finished" in page.locator("header").inner_text()
        assert said == []


def test_all_can_be_reached_by_the_keyboard(made: Path, chromium: Any) -> None:
    with served(made) as address, page_of(chromium) as (page, _):
        page.goto(address)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        page.goto(address)
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Frontiers"
        page.keyboard.press("Enter")
        page.wait_for_url("**/frontiers")


def test_a_report_is_shown_whole_in_its_sandbox(made: Path, chromium: Any) -> None:
    with served(made) as address, page_of(chromium) as (page, said):
        page.goto(f"{address}/file/report.html/runs/first")
        assert page.locator("#expand").is_visible(), "its own script runs"
        assert page.evaluate("self.origin") == "null"
        assert page.evaluate("getComputedStyle(document.body).margin") == "0px", "its style is there"
        assert said == []
