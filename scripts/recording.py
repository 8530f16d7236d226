"""Draw what a run printed as one SVG, in which the lines come as they came; light or dark as the reader's screen is.

python scripts/recording.py benchmarks/results/whole.jsonl docs/images/whole.svg

A line of the file is ``{"at": seconds, "kind": "command", "output", "said" or "goal", "text": …}``, as `mapsto bench whole` writes it.
Waits are cut to `LONGEST` seconds, and of lines that say how far a step is, which a terminal overwrites, only the last of a step is kept.
Where motion is not wanted, or a viewer cannot animate, the last lines stand.
"""

from __future__ import annotations

import html
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS, LINES = 120, 32
CHARACTER, LINE, PADDING = 8.43, 18, 14
SHORTEST, LONGEST, END = 0.08, 1.5, 8.0
"""Seconds between two lines at least and at most, and for which the end stands."""
PROGRESS = re.compile(r"^\s+(\S+ \(\w+\)): \d+ of \d+ ")
LIGHT = {
    "paper": "#fbfbfa",
    "text": "#24292f",
    "faint": "#59636e",
    "done": "#116329",
    "said": "#0550ae",
    "warned": "#7d4e00",
}
DARK = {
    "paper": "#1e222a",
    "text": "#d8dee9",
    "faint": "#a3abb8",
    "done": "#98c379",
    "said": "#7ab8f5",
    "warned": "#e5c07b",
}
"""Colours by what a line is; each is readable on the paper (4.5 : 1 or more)."""
Line = tuple[float, str, str]
"""Seconds at which it comes, what it is, and its text."""


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    entries = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    target.write_text(drawn(shown(entries)), encoding="utf-8")
    print(f"wrote {target}")


def shown(entries: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The lines of the picture: long ones folded, waits cut, overwritten ones left out."""
    found: list[Line] = []
    at, before = 0.0, 0.0
    for number, entry in enumerate(entries):
        text = str(entry["text"])
        step = PROGRESS.match(text)
        following = PROGRESS.match(str(entries[number + 1]["text"])) if number + 1 < len(entries) else None
        if step is not None and following is not None and step[1] == following[1]:
            continue
        at += min(max(float(entry["at"]) - before, SHORTEST if number else 0.0), LONGEST)
        before = float(entry["at"])
        folded = textwrap.wrap(text, COLUMNS, subsequent_indent="    ", drop_whitespace=False) or [""]
        found += [(at, what_of(str(entry["kind"]), text), part) for part in folded]
    return found


def what_of(kind: str, text: str) -> str:
    if kind != "output":
        return "command" if kind == "command" else "said"
    if text.startswith("✓"):
        return "done"
    if text.startswith(("!", "mapsto:")):
        return "warned"
    return "faint" if text.startswith(" ") else "text"


def drawn(lines: Sequence[Line]) -> str:
    """All lines below each other; a cover over those to come, and a window that follows, move in steps."""
    total = lines[-1][0] + END
    width, height = COLUMNS * CHARACTER + 2 * PADDING, LINES * LINE + 2 * PADDING
    tall = len(lines) * LINE
    seconds = dict.fromkeys(at for at, _, _ in lines)
    until = {at: max(number for number, line in enumerate(lines) if line[0] <= at) + 1 for at in seconds}
    scroll, cover = ["0%{transform:translateY(0)}"], ["0%{transform:translateY(0)}"]
    for at, count in until.items():
        share = 100 * at / total
        scroll.append(f"{share:.2f}%{{transform:translateY({-LINE * max(count - LINES, 0)}px)}}")
        cover.append(f"{share:.2f}%{{transform:translateY({LINE * count}px)}}")
    last_scroll, last_cover = -LINE * max(len(lines) - LINES, 0), tall
    style = (
        f"{colours(LIGHT)}@media(prefers-color-scheme:dark){{{colours(DARK)}}}"
        f".command{{font-weight:bold}}#lines{{transform:translateY({last_scroll}px)}}#cover{{transform:translateY({last_cover}px)}}"
        f"@keyframes scroll{{{''.join(scroll)}100%{{transform:translateY({last_scroll}px)}}}}"
        f"@keyframes cover{{{''.join(cover)}100%{{transform:translateY({last_cover}px)}}}}"
        f"@media(prefers-reduced-motion:no-preference){{#lines{{animation:scroll {total:.1f}s step-end infinite}}"
        f"#cover{{animation:cover {total:.1f}s step-end infinite}}}}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" aria-label="A run in a terminal" '
        f'font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="14"><style>{style}</style>',
        f'<rect class="paper" width="100%" height="100%" rx="8"/><svg x="{PADDING}" y="{PADDING}" '
        f'width="{COLUMNS * CHARACTER:.0f}" height="{LINES * LINE}"><g id="lines">',
    ]
    for number, (_, what, text) in enumerate(lines):
        prompt = '<tspan class="done">$ </tspan>' if what == "command" else ""
        y = LINE * (number + 0.75)
        parts.append(f'<text class="{what}" y="{y:g}" xml:space="preserve">{prompt}{html.escape(text)}</text>')
    parts.append(f'<rect id="cover" class="paper" width="100%" height="{tall}"/></g></svg></svg>\n')
    return "\n".join(parts)


def colours(of: Mapping[str, str]) -> str:
    rules = {"command": of["text"], **of}
    return "".join(f".{name}{{fill:{colour}}}" for name, colour in rules.items())


if __name__ == "__main__":
    main()
