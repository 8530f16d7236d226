"""The picture of a run in a terminal: what it shows, that it stands still where motion is not wanted, and that it can be read."""

from __future__ import annotations

import importlib.util
import itertools
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(at: float, text: str, kind: str = "output") -> dict[str, object]:
    return {"at": at, "kind": kind, "text": text}


RUN = [
    entry(0, "mapsto run whole", "command"),
    entry(10, "    meta.protonet (plain): 30 of 300  train_loss 3"),
    entry(20, "    meta.protonet (plain): 90 of 300  train_loss 2"),
    entry(30, "✓ meta.protonet (plain) <3 & more"),
    entry(31, "w" * 150),
    *[entry(32, f"line {number}") for number in range(40)],
    entry(40, "# it learnt", "said"),
]


def test_lines_come_in_order_and_waits_are_cut() -> None:
    recording = script("recording")
    lines = recording.shown(RUN)
    texts = [text for _, _, text in lines]
    assert texts[1].startswith("    meta.protonet (plain): 90"), "what a terminal overwrites is left out"
    assert max(map(len, texts)) <= recording.COLUMNS
    times = [at for at, _, _ in lines]
    assert times == sorted(times)
    assert max(b - a for a, b in itertools.pairwise(times)) <= recording.LONGEST
    assert [what for _, what, _ in lines][:3] == ["command", "faint", "done"]


def test_the_picture_holds_every_line_and_ends_with_the_last() -> None:
    recording = script("recording")
    lines = recording.shown(RUN)
    svg = recording.drawn(lines)
    tree = ElementTree.fromstring(svg)
    texts = ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == [("$ " if what == "command" else "") + text for _, what, text in lines]
    still = re.search(r"#lines\{transform:translateY\((-?\d+)px\)\}", svg)
    assert still is not None
    assert int(still[1]) == -recording.LINE * (len(lines) - recording.LINES), "without motion the last lines stand"
    animated = svg.index("@media(prefers-reduced-motion:no-preference)")
    assert svg.index("animation:") > animated, "it moves only where motion is wanted"


@pytest.mark.parametrize("name", ["LIGHT", "DARK"])
@pytest.mark.parametrize("of", ["recording", "parts_picture"])
def test_text_can_be_read_in_light_and_dark(name: str, of: str) -> None:
    colours = getattr(script(of), name)

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = luminance(colours["paper"])
    for what, colour in colours.items():
        if what not in ("paper", "bar"):  # of WCAG 2: 4.5 for text, 3 for what is drawn
            light, dark = sorted((paper, luminance(colour)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= (3 if what == "whole" else 4.5), what


def test_bars_are_as_long_as_their_figures() -> None:
    rows = [
        {"chain": "the whole", "accuracy %": 90.0, "bytes": 24_000, "ms": 0.05},
        {"chain": "a & b", "accuracy %": 45.0},
    ]
    tree = ElementTree.fromstring(script("parts_picture").drawn(rows))
    bars = [node for node in tree.iter("{http://www.w3.org/2000/svg}rect") if node.get("class") in ("whole", "bar")]
    assert len(bars) == 4, "what a row does not have is left empty"
    assert float(bars[0].attrib["width"]) == pytest.approx(2 * float(bars[1].attrib["width"]), abs=0.2)
