"""The Playground in Chromium: its arithmetic is mapsto's, ten drawings teach it, and it can be used by all."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from mapsto.kinds import Adaptation
from mapsto.nn.adapt.probe import centroid_head
from mapsto.nn.meta.adaptation.ridge import first_tensors
from mapsto.nn.meta.adaptation.ridge import head as ridge_head
from mapsto_runtime.preprocessing.image_files import read_picture
from tests.browser import CHROMIUM
from tests.playground.test_files import FOLDER

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
AXE = (Path(__file__).parents[1] / "studio" / "axe" / "axe.min.js").read_text("utf-8")
SIGNS = {
    "cross": [[(0.2, 0.2), (0.8, 0.8)], [(0.8, 0.2), (0.2, 0.8)]],
    "line": [[(0.5, 0.1), (0.5, 0.9)]],
    "box": [[(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8), (0.2, 0.2)]],
    "tee": [[(0.2, 0.2), (0.8, 0.2)], [(0.5, 0.2), (0.5, 0.85)]],
    "zigzag": [[(0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)]],
}


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not of interest; what is missing is in the page's console."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(FOLDER))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(chromium: Any, address: str, **options: Any) -> tuple[Any, list[str]]:
    """The page when its network is ready, and what its console says or it loads from elsewhere."""
    page, said = chromium.new_context(**options).new_page(), []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith((address, "data:", "blob:")) else said.append(sent.url))
    page.goto(address)
    sync_api.expect(page.locator("#status")).to_have_text("The network is ready.", timeout=60000)
    return page, said


def draw(page: Any, sign: str, random: np.random.Generator) -> None:
    """With the mouse, somewhat elsewhere, larger or smaller and shaken each time."""
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    size, left, top = random.uniform(0.7, 0.9), random.uniform(0, 0.1), random.uniform(0, 0.1)
    for stroke in SIGNS[sign]:
        for number, point in enumerate(stroke):
            x, y = random.normal(point, 0.02)
            page.mouse.move(
                box["x"] + box["width"] * (left + size * x), box["y"] + box["height"] * (top + size * y), steps=4
            )
            if not number:
                page.mouse.down()
        page.mouse.up()


def taught(page: Any, random: np.random.Generator, per_class: int = 2) -> None:
    for sign in list(SIGNS) * per_class:
        page.fill("#label", sign)
        draw(page, sign, random)
        page.click("#add")
        sync_api.expect(page.locator("#status")).to_contain_text(f"Added an example of {sign}.")


@pytest.mark.parametrize("method", ["centroid", "ridge"])
def test_ten_drawings_are_enough_for_the_eleventh(chromium: Any, address: str, method: str) -> None:
    page, said = opened(chromium, address)
    random = np.random.default_rng(0)
    page.select_option("#method", method)
    taught(page, random)
    for sign in SIGNS:
        draw(page, sign, random)
        sync_api.expect(page.locator("#answer")).to_contain_text(f"{sign}, confidence")
        assert page.locator("#bars li").count() == 5
        assert page.locator("#near li").count() == 3
        page.click("#clear")
    with page.expect_download() as saved:
        page.click("#save")
    found = json.loads(Path(saved.value.path()).read_text("utf-8"))
    assert [one["label"] for one in found["examples"]] == list(SIGNS) * 2
    page.click("#restart")
    assert page.locator("#classes li").count() == 0
    page.set_input_files("#load", saved.value.path())
    sync_api.expect(page.locator("#classes li")).to_have_count(10)
    assert said == []
    page.context.close()


def test_features_and_heads_are_those_of_python(chromium: Any, address: str) -> None:
    random = np.random.default_rng(1)
    pictures = []
    for number in range(20):
        small = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        size = (int(random.integers(20, 150)), int(random.integers(20, 150)))
        pictures.append(
            Image.fromarray(small).resize(size, Image.Resampling.BICUBIC if number % 2 else Image.Resampling.NEAREST)
        )
    page, said = opened(chromium, address)
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx")
    theirs, ours = [], []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "PNG")
        pixels = read_picture(file.getvalue(), "test", size=(28, 28), channels=1, ink="light").pixels
        values = (pixels[None].astype(np.float32) / np.float32(255) - np.float32(0.1)) / np.float32(0.2)
        ours.append(session.run(None, {"input": values})[0][0])
        rgba = np.asarray(picture.convert("RGBA")).reshape(-1).tolist()
        found = page.evaluate(
            """async ([rgba, width, height]) => {
                const {prepared} = await import('./learning.js'), {featuresOf} = await import('./playground.js');
                const pixels = prepared(Uint8Array.from(rgba), width, height);
                return [Array.from(pixels), await featuresOf(pixels)];
            }""",
            [rgba, picture.width, picture.height],
        )
        assert np.abs(np.array(found[0]) - pixels.reshape(-1)).max() <= 1
        theirs.append(found[1])
    features = np.array(ours)
    assert np.abs(np.array(theirs) - features).mean() < 0.02 * features.std()
    labels = np.arange(20) % 4
    rows = torch.as_tensor(features, dtype=torch.float64)
    method = Adaptation(method="ridge", tensors=first_tensors())
    for name, (weight, bias) in {
        "centroid": centroid_head(rows, labels, 4),
        "ridge": ridge_head(rows, torch.as_tensor(labels), 4, method),
    }.items():
        found = page.evaluate(
            f"async ([x, y]) => (await import('./learning.js')).{name}(x, y, 4)", [rows.tolist(), labels.tolist()]
        )
        np.testing.assert_allclose(found["weight"], weight.numpy(), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found["bias"], bias.numpy(), rtol=1e-6, atol=1e-8)
    assert said == []
    page.context.close()


def test_keys_alone_draw(chromium: Any, address: str) -> None:
    page, _ = opened(chromium, address)
    page.click("#ten")
    sync_api.expect(page.locator("#classes li")).to_have_count(10)
    page.focus("#canvas")
    for _ in range(5):
        page.keyboard.press("Space")
        page.keyboard.press("ArrowUp")
    sync_api.expect(page.locator("#answer")).to_contain_text("confidence")
    sync_api.expect(page.locator("#cell")).to_have_text("column 8, row 3, empty")
    for _ in range(5):
        page.click("#undo")
    sync_api.expect(page.locator("#answer")).to_have_text("Draw, and see what it is taken for.")
    page.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)])
def test_it_fits_and_is_accessible(chromium: Any, address: str, tmp_path: Path, scheme: str, width: int) -> None:
    page, said = opened(chromium, address, color_scheme=scheme, viewport={"width": width, "height": 800})
    taught(page, np.random.default_rng(2), 1)
    draw(page, "box", np.random.default_rng(3))
    sync_api.expect(page.locator("#answer")).to_contain_text("confidence")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.evaluate(AXE)
    violations = page.evaluate("axe.run().then(found => found.violations)")
    assert [one["id"] for one in violations if one["impact"] in ("serious", "critical")] == []
    assert said == []
    page.context.close()


def test_without_javascript_it_says_what_it_is(chromium: Any, address: str) -> None:
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto(address)
    assert "mapsto run demo" in page.inner_text("main")
    page.context.close()
