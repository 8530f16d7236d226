"""Write the benchmark tables of the READMEs from the result files; ``--check`` only compares.

Between ``<!-- table NAME -->`` and ``<!-- end -->`` stands what this script made of ``benchmarks/results/NAME.json``: its targets,
the unmet ones included, or "not run".
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILES = ("README.md", "README.zh-CN.md")
HEADS = {
    "README.md": ("what", "goal", "measured", "met", "yes", "**no**", "not run", "Measured"),
    "README.zh-CN.md": ("项目", "目标", "实测", "达成", "是", "**否**", "未运行", "测量于"),
}


def number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(name: str, file: str) -> str:
    what, goal, measured, met, yes, no, not_run, at = HEADS[file]
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    if not path.exists():
        return f"{name}: {not_run}"
    tree = json.loads(path.read_text(encoding="utf-8"))
    lines = [f"| {what} | {goal} | {measured} | {met} |", "|---|---|---|---|"]
    for entry in tree["targets"]:
        verdict = {True: yes, False: no, None: not_run}[entry["met"]]
        goal_text = str(entry["goal"]).replace(">=", "≥").replace("<=", "≤")
        lines.append(f"| {entry['what']} | {goal_text} | {number(entry['measured'])} | {verdict} |")
    lines += detail(tree["rows"], file)
    env = tree["environment"]
    lines += [
        "",
        f"{at} {tree['measured_at'][:10]}, {env['cpu']}, {env['cores']} cores, torch {env['packages']['torch']}, "
        f"`benchmarks/results/{name}.json`.",
    ]
    return "\n".join(lines)


DETAIL = {
    "README.md": (
        "figure",
        "seed 0 ± CI95",
        "n",
        "mean of seeds ± CI95",
        "median",
        "least – most",
        "beside the peer",
        "times",
    ),
    "README.zh-CN.md": ("指标", "种子 0 ± CI95", "n", "各种子均值 ± CI95", "中位数", "最小 – 最大", "与对照相比", "倍"),
}


def detail(rows: list[dict[str, Any]], file: str) -> list[str]:
    """The rows behind the targets: accuracies and drops with their intervals, or times with their spread."""
    figure, seed, n, mean, median, spread, beside, times = DETAIL[file]

    def pm(value: Any, ci95: Any) -> str:
        return number(value) + (f" ± {number(ci95)}" if ci95 is not None else "")

    sampled = [row for row in rows if row.get("n") and row.get("unit") in ("%", "points", "×")]
    timed = [row for row in rows if "ms" in row or "us" in row]
    lines = by_ratio(rows)
    if sampled:
        lines += ["", f"| {figure} | {seed} | {n} | {mean} |", "|---|---|---|---|"]
        for row in sampled:
            unit = row["unit"]
            one = pm(row["seed 0"], row.get("ci95 within seed 0"))
            many = pm(row["mean of seeds"], row.get("ci95 over seeds"))
            lines.append(f"| `{row['what']}` | {one} {unit} | {row['n']} | {many} {unit} |")
    if timed:
        lines += ["", f"| {figure} | {median} | {spread} | {beside} |", "|---|---|---|---|"]
        for row in timed:
            unit = "ms" if "ms" in row else "µs"
            ratio = ""
            if "beside" in row:
                low, high = number(row["ratio low"]), number(row["ratio high"])
                ratio = f"{number(row['times as long'])} {times} ({low} – {high}), {row['beside']}"
            value = number(row.get("ms", row.get("us")))
            lines.append(f"| {row['what']} | {value} {unit} | {number(row['low'])} – {number(row['high'])} | {ratio} |")
    return lines


def by_ratio(rows: list[dict[str, Any]]) -> list[str]:
    """Accuracies of networks that were made smaller: a row for each way, a column for each ratio; what was not run is left out."""
    found: dict[str, dict[float, str]] = {}
    for row in rows:
        figure = row.get("taught", row.get("accuracy"))
        if "ratio" not in row or not isinstance(figure, float):
            continue
        what = ", ".join(str(row[part]) for part in ("network", "way") if part in row)
        half = row.get("ci95 over seeds") or row.get("ci95 over episodes")
        cell = number(figure) + (f" ± {number(half)}" if half else "")
        if "times as fast as PyTorch" in row:
            cell += f", {number(row['times as fast as PyTorch'])}×"
        epochs = str(row.get("epochs", "")).replace(" of ", " epochs of ")
        epochs += "" if "epochs" in epochs else " epoch" if epochs == "1" else " epochs"
        trained = f", {epochs}" if "epochs" in row else ""
        found.setdefault(what + trained, {})[row["ratio"]] = cell
    ratios = sorted({ratio for cells in found.values() for ratio in cells})
    if not ratios:
        return []
    seeds = max(row.get("seeds", 1) for row in rows)
    head = f"%, {seeds} seed{'s' if seeds > 1 else ''}"
    lines = ["", f"| {head} | {' | '.join(f'{ratio:g}×' for ratio in ratios)} |", "|---" * (len(ratios) + 1) + "|"]
    for what, cells in found.items():
        lines.append(f"| {what} | {' | '.join(cells.get(ratio, '–') for ratio in ratios)} |")
    return lines


def names(file: str) -> str:
    """One row a family, its mappings beside it: what ``mapsto list`` prints."""
    from mapsto import discovery

    families: dict[str, list[str]] = {}
    for name in discovery.entries("mappings"):
        family, _, rest = name.partition(".")
        families.setdefault(family, []).append(f"`{rest}`")
    head = {"README.md": "| family | mappings |", "README.zh-CN.md": "| 家族 | 映射 |"}[file]
    data = ", ".join(f"`{name}`" for name in discovery.entries("data"))
    rows = [f"| `{family}` | {', '.join(members)} |" for family, members in families.items()]
    return "\n".join([head, "|---|---|", *rows, f"| `data` | {data} |"])


def filled(text: str, file: str) -> str:
    def replace(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{table(match[1], file)}\n<!-- end -->"

    text = re.sub(
        r"<!-- names -->\n.*?<!-- end names -->",
        f"<!-- names -->\n{names(file)}\n<!-- end names -->",
        text,
        flags=re.DOTALL,
    )
    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main() -> int:
    stale = []
    for file in FILES:
        path = ROOT / file
        text = path.read_text(encoding="utf-8")
        new = filled(text, file)
        if new != text:
            stale.append(file)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    print("stale: " + ", ".join(stale) if stale else "tables are up to date")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
