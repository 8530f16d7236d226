"""``mapsto predict --explain``: what is shown, written and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.packages import color_package, word_package
from tests.command import mapsto


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return color_package(tmp_path / "colours" / "package", size=16)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Green above, red below."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:10, :, 1], pixels[10:, :, 0] = 200, 200
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_page_and_a_picture_for_each_image(package, photo, tmp_path):
    """The same image twice: pictures of different names."""
    done = mapsto("predict", package, photo, photo, "--explain", "--out", tmp_path / "out", code=0)
    assert done.out.count("green: ") == done.out.count("with everything hidden") == 2
    page = (tmp_path / "out" / "explanations.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert (tmp_path / "out" / "photo_explained_1.png").is_file()
    shown = np.asarray(Image.open(tmp_path / "out" / "photo_explained.png"), np.int64)
    assert shown.shape[1] > 2 * shown.shape[0]
    above, below = shown[20, -20], shown[-20, -20]
    assert above[0] > above[2], "red speaks for it"
    assert below[0] < below[2], "blue against it"


def test_words_on_the_page_and_as_json(tmp_path):
    folder = word_package(tmp_path / "package", ("card", "fruit"), {"card": (2.0, 0.0), "is": (0.0, 0.5)})
    done = mapsto("predict", folder, "where is my <b>card</b>?", "--explain", "--json", "--out", tmp_path / "o", code=0)
    words = json.loads(done.out)[0]["explanation"]["words"]
    assert [each["name"] for each in words][:3] == ["where", "is", "my"]
    strongest = max(words, key=lambda each: each["score"])
    assert "card" in strongest["name"]
    assert (strongest["score"], words[1]["score"]) == pytest.approx((2.0, -0.5))
    page = (tmp_path / "o" / "explanations.html").read_text(encoding="utf-8")
    assert "<b>card" not in page
    assert page.count('class="') > len(words)


def test_what_is_of_use_with_explain_alone_says_so(package):
    assert "add --explain" in mapsto("predict", package, "x.png", "--target", "3", code=2).err
    assert "it does not know '11'" in mapsto("predict", package, "x.png", "--explain", "--target", "11", code=2).err


@pytest.mark.slow
def test_the_examples_of_an_adapted_network_are_named(tmp_path, monkeypatch):
    """Of a run by its store, with pictures of them; of a table's folder alone by rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "kept"))
    Path("few.yaml").write_text(FEW, encoding="utf-8")
    mapsto("run", "few.yaml", "--out", "few", "--threads", 1, code=0)
    image = sorted(map(str, Path("few/package/examples").glob("*.png")))[0]
    done = mapsto("predict", "few", image, "--explain", "--out", "page", code=0)
    assert "by distances to class means, exact" in done.out
    assert Path("page/explanations.html").read_text(encoding="utf-8").count("data:image/png") > 2
    support = json.loads(mapsto("predict", "few", image, "--explain", "--json", code=0).out)[0]["explanation"][
        "support"
    ]
    assert support["examples"][0]["part"] > 0
    assert "support" not in mapsto("predict", "few", image, "--explain", "--no-examples", "--json", code=0).out
    card = json.loads(mapsto("evaluate", "few", "--data", "{digits: {size: 8}}", *CARD, code=0).out)
    cases = next(iter(card["packages"][0]["results"].values()))["explained"]
    assert len(cases) == 8
    assert all(case["support"]["how"] == "distances to class means, exact" for case in cases)
    assert all(case["support"]["answer"] == case["answer"] for case in cases)
    assert cases[0]["support"]["examples"][0]["picture"].startswith("data:image/png;base64,")
    rows = [f"{i % 2 * 4 + i / 20},{i % 3},{'yes' if i % 2 else 'no'}" for i in range(12)]
    Path("table.csv").write_text("\n".join(["a,b,kind", *rows]), encoding="utf-8")
    mapsto("adapt", "table.csv", "--target", "kind", "--out", "adapted", code=0)
    done = mapsto("predict", "adapted", "table.csv", "--explain", "--by", "gradient_x_input", code=0)
    assert done.out.count("by gradient_x_input") == 12
    assert "row 1" in done.out


def test_what_a_package_alone_cannot_tell_is_said(package, photo):
    done = mapsto("predict", package, photo, "--explain", "--by", "saliency", code=0)
    assert "occlusion is used instead of saliency" in done.err
    assert "by occlusion" in done.out
    assert "a package alone" in mapsto("predict", package, photo, "--explain", "--examples", code=2).err


CARD = ("--explain", "--no-speed", "--json")
FEW = """\
schema: 1
name: few
data:
  few: {subset: {data: {digits: {size: 8}}, per_class: 3}}
steps:
  - networks.conv4: {data: $few, width: 8, blocks: 2}
  - adapt.centroid: {data: $few}
  - export.onnx: {data: $few}
"""
