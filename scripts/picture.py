"""Draw the README's picture from a run's report: accuracy against latency and size after each step.

python scripts/picture.py runs/demo docs/images/demo.svg
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from mapsto.intervals import interval_ends
from mapsto.report import charts

PANELS = (("latency p50", "one image, one thread, ms"), ("bytes", "bytes"))


def panel(summary: dict[str, Any], x: str, x_name: str) -> str:
    columns = summary["columns"]
    series: dict[str, list[charts.Point]] = {}
    for name in columns:
        if not name.endswith(" accuracy") or name.startswith("rest"):
            continue
        points = []
        for row in summary["rows"]:
            cells = dict(zip(columns, row, strict=True))
            if cells.get(x) and cells.get(name):
                ends = interval_ends(cells[name], summary["units"].get(name, ""))
                points.append(charts.Point(cells["stage"], cells[x]["value"], cells[name]["value"], ends))
        if len(points) > 1:
            series[name.removesuffix(" accuracy")] = points
    return charts.scatter(series, x_name=f"{x_name} (log)", y_name="accuracy, %", log_x=True)


def css() -> str:
    """The rules of the report's own style sheet that charts use, its colours as they are in light mode."""
    return (Path(charts.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")


def main() -> None:
    run, target = Path(sys.argv[1]), Path(sys.argv[2])
    summary = json.loads((run / "report.json").read_text(encoding="utf-8"))["summary"]
    drawn = [panel(summary, *given) for given in PANELS]
    sizes = [tuple(float(n) for n in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()) for svg in drawn]
    width, height = sum(w for w, _ in sizes) + 24, max(h for _, h in sizes)
    parts, x = [], 0.0
    for svg, (w, _) in zip(drawn, sizes, strict=True):
        parts.append(re.sub(r"<svg ", f'<svg x="{x:g}" y="0" ', svg, count=1))
        x += w + 24
    light = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", css())
    body = "".join(parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
    target.write_text(
        f"{head}<style>{light}</style><rect width='100%' height='100%' fill='#fff'/>{body}</svg>\n", encoding="utf-8"
    )
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
