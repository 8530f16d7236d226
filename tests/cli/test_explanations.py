"""``mapsto predict --explain``: what is shown, written and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.command import mapsto
from tests.text.packages import text_package

from mapsto import datasets, networks
from mapsto.mappings.export.onnx import Onnx


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explained") / "package"
    digits = datasets.subset(data=datasets.digits(size=8), per_class=2)
    made = Onnx(data=digits)(networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0))
    for name, path in made.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
    return folder


def test_a_page_and_a_picture_for_each_image(package, tmp_path):
    files = sorted(map(str, (package / "examples").glob("*.png")))[:2]
    done = mapsto("predict", package, *files, "--explain", "--out", tmp_path / "out", code=0)
    assert done.out.count("with everything hidden") == 2
    page = (tmp_path / "out" / "explanations.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    shown = Image.open(tmp_path / "out" / "0_explained.png")
    assert shown.width > 2 * shown.height
    assert len(np.unique(np.asarray(shown).reshape(-1, 3), axis=0)) > 50


def test_words_on_the_page_and_as_json(tmp_path):
    folder = text_package(tmp_path)
    done = mapsto("predict", folder, "where is my <b>card</b>?", "--explain", "--json", "--out", tmp_path / "o", code=0)
    words = json.loads(done.out)[0]["explanation"]["words"]
    assert [each["name"] for each in words][:3] == ["where", "is", "my"]
    page = (tmp_path / "o" / "explanations.html").read_text(encoding="utf-8")
    assert "<b>card" not in page
    assert page.count('class="') > len(words)


def test_what_is_of_use_with_explain_alone_says_so(package):
    assert "add --explain" in mapsto("predict", package, "x.png", "--target", "3", code=2).err
    assert "it does not know '11'" in mapsto("predict", package, "x.png", "--explain", "--target", "11", code=2).err


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
    rows = [f"{i % 2 * 4 + i / 20},{i % 3},{'yes' if i % 2 else 'no'}" for i in range(12)]
    Path("table.csv").write_text("\n".join(["a,b,kind", *rows]), encoding="utf-8")
    mapsto("adapt", "table.csv", "--target", "kind", "--out", "adapted", code=0)
    done = mapsto("predict", "adapted", "table.csv", "--explain", "--by", "gradient_x_input", code=0)
    assert done.out.count("by gradient_x_input") == 12
    assert "row 1" in done.out


def test_what_a_package_alone_cannot_tell_is_said(package, tmp_path):
    image = str(package / "examples" / "0.png")
    done = mapsto("predict", package, image, "--explain", "--by", "saliency", code=0)
    assert "occlusion is used instead of saliency" in done.err
    assert "by occlusion" in done.out
    assert "a package alone" in mapsto("predict", package, image, "--explain", "--examples", code=2).err


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
