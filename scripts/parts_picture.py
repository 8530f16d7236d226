"""Draw what each part of the recipe `whole` earned from ``benchmarks/results/whole.json``: percent right, kilobytes, milliseconds, in bars.

python scripts/parts_picture.py docs/images/whole_parts.svg
"""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "whole.json"
PANELS = (("accuracy %", "right, %", 1.0, 100.0), ("bytes", "kB", 1e-3, None), ("ms", "ms an image", 1.0, None))
"""Name in the rows, what stands above it, factor, and the axis's end where it is fixed."""
LABEL, PANEL, GAP, ROW, TOP, PADDING = 250, 165, 70, 24, 34, 14
LIGHT = {"paper": "#fbfbfa", "text": "#24292f", "bar": "#8fb4d9", "whole": "#0b62b8"}
DARK = {"paper": "#1e222a", "text": "#d8dee9", "bar": "#43607d", "whole": "#6cb0f5"}


def main() -> None:
    target = Path(sys.argv[1])
    rows = [row for row in json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if "chain" in row]
    target.write_text(drawn(rows), encoding="utf-8")
    print(f"wrote {target}")


def drawn(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row of bars for each chain; a figure that a row does not have is left empty."""
    width = 2 * PADDING + LABEL + len(PANELS) * (PANEL + GAP)
    height = 2 * PADDING + TOP + len(rows) * ROW
    style = "".join(f".{name}{{fill:{colour}}}" for name, colour in LIGHT.items())
    style += (
        f"@media(prefers-color-scheme:dark){{{''.join(f'.{name}{{fill:{colour}}}' for name, colour in DARK.items())}}}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="What each part earned" '
        f'font-family="system-ui, Segoe UI, Roboto, DejaVu Sans, sans-serif" font-size="13"><style>{style}</style>',
        '<rect class="paper" width="100%" height="100%" rx="8"/>',
    ]
    for number, row in enumerate(rows):
        y = PADDING + TOP + ROW * number
        parts.append(f'<text class="text" x="{PADDING}" y="{y + 15}">{html.escape(str(row["chain"]))}</text>')
    for place, (name, title, factor, end) in enumerate(PANELS):
        x = PADDING + LABEL + place * (PANEL + GAP)
        parts.append(f'<text class="text" x="{x}" y="{PADDING + 14}" font-weight="bold">{title}</text>')
        most = end or max(factor * row[name] for row in rows if row.get(name) is not None)
        for number, row in enumerate(rows):
            if row.get(name) is None:
                continue
            value, y = factor * row[name], PADDING + TOP + ROW * number
            long = PANEL * value / most
            parts.append(
                f'<rect class="{"bar" if number else "whole"}" x="{x}" y="{y + 3}" width="{long:.1f}" height="{ROW - 8}" rx="2"/>'
                f'<text class="text" x="{x + long + 5:.1f}" y="{y + 15}">{value:.3g}</text>'
            )
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    main()
