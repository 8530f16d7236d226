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
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


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
    env = tree["environment"]
    lines += [
        "",
        f"{at} {tree['measured_at'][:10]}, {env['cpu']}, {env['cores']} cores, torch {env['packages']['torch']}, "
        f"`benchmarks/results/{name}.json`.",
    ]
    return "\n".join(lines)


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
