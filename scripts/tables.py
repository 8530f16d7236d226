"""Write the tables of the READMEs, of ``docs/`` and of tutorials' sources from the result files; ``--check`` only compares.

Between ``<!-- table NAME -->`` and ``<!-- end -->`` stands what this script made of ``benchmarks/results/NAME.json``: its goals,
the unmet ones included, and one line for what was not run. ``<!-- headline -->`` is the READMEs' one table, ``<!-- names -->`` lists
every mapping. Within a line, ``<!-- figure NAME: WHAT -->`` is one goal's figure: WHAT as the result file has it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FILES = (
    "README.md",
    "README.zh-CN.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "benchmarks").glob("*.md")),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "examples").glob("*.md")),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "tutorials").glob("*.py")),
)

HEADLINE = (
    ("main_job", "times fewer parameters", "参数减少的倍数"),
    ("main_job", "times fewer multiply-accumulates", "乘加运算减少的倍数"),
    ("main_job", "times faster than the teacher in ONNX Runtime", "比 ONNX Runtime 中的教师快的倍数"),
    ("main_job", "times faster than the teacher in PyTorch", "比 PyTorch 中的教师快的倍数"),
    ("main_job", "points lost on unseen scripts, 5-way 1-shot", "在没见过的文字上损失的百分点（5 类 1 样本）"),
    ("main_job_seeds", "points lost on the digits, mean over seeds", "在数字上损失的百分点，各种子的均值"),
    ("main_job_seeds", "points lost on the digits, worst seed", "在数字上损失的百分点，最差的种子"),
    ("main_job", "wall time from a warm environment, seconds", "首次运行的秒数"),
)
"""Rows of the READMEs' table: result file, what, and what in Chinese."""
CHINESE = {
    "what": "内容",
    "goal": "目标",
    "measured": "实测",
    "met": "达成",
    "yes": "是",
    "**no**": "**否**",
    "training, epoch": "训练，轮次",
    "labels alone": "只用标签",
    "Euclidean distance": "欧氏距离",
    "cosine distance": "余弦距离",
    "learning rate": "学习率",
    "train loss": "训练损失",
    "validation loss": "验证损失",
    "validation images, % right": "验证图像，% 正确",
    "teacher": "教师",
    "pruned, not trained": "剪枝后，未训练",
    "Lightning, labels alone": "Lightning，只用标签",
    "Lightning, Euclidean distance": "Lightning，欧氏距离",
    "Lightning, cosine distance": "Lightning，余弦距离",
    "recipe, float": "配方，浮点",
    "recipe, int8": "配方，int8",
    "accuracy %": "准确率 %",
    "million multiply-accumulates": "百万次乘加运算",
    "kB of its ONNX file": "ONNX 文件，kB",
    "ms an image": "每张图像毫秒数",
    "times as fast as the teacher": "是教师的多少倍快",
    "points that the better distance to the teacher gains over labels alone": "较好的距离比只用标签高出的百分点",
    "points that the better one loses beside its teacher": "较好的距离比教师低的百分点",
    "points that the recipe's int8 network loses beside the teacher": "配方的 int8 网络比教师低的百分点",
    "the recipe's int8 network: times as fast as the teacher": "配方的 int8 网络：是教师的多少倍快",
    "mapsto compress: points lost beside the teacher": "mapsto compress：比教师低的百分点",
    "mapsto compress: kB of the ONNX file": "mapsto compress：ONNX 文件，kB",
    "mapsto compress: times as fast as the teacher": "mapsto compress：是教师的多少倍快",
    "CPU minutes of the whole": "总共的 CPU 分钟数",
}
"""What cells of tables say on a page in Chinese."""


def number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def results(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def goals(entries: list[dict[str, Any]]) -> list[str]:
    """A row for each goal that was judged, then one line for those that were not run."""
    run = [entry for entry in entries if entry["met"] is not None]
    lines = ["| what | goal | measured | met |", "|---|---|---|---|"] if run else []
    for entry in run:
        verdict = "yes" if entry["met"] else "**no**"
        lines.append(f"| {entry['what']} | {goal(entry)} | {number(entry['measured'])} | {verdict} |")
    waiting = "; ".join(f"{entry['what']} ({goal(entry)})" for entry in entries if entry["met"] is None)
    return lines + (["", f"Not run: {waiting}."] if waiting else [])


def goal(entry: dict[str, Any]) -> str:
    return str(entry["goal"]).replace(">=", "≥").replace("<=", "≤")


def table(name: str) -> str:
    tree = results(name)
    if tree is None:
        return f"Not run: `mapsto bench {name}`."
    env = tree["environment"]
    lines = [*goals(tree["targets"]), *detail(tree["rows"]), ""]
    lines.append(
        f"Measured {tree['measured_at'][:10]}, {env['cpu']}, {env['cores']} cores, torch {env['packages']['torch']}, "
        f"`benchmarks/results/{name}.json`."
    )
    return "\n".join(lines)


def in_chinese(text: str) -> str:
    """A table with the cells in Chinese that `CHINESE` knows."""

    def cell(match: re.Match[str]) -> str:
        words, _, number_of_epoch = match[0].rpartition(", ")
        if number_of_epoch.isdecimal() and words in CHINESE:
            return f"{CHINESE[words]}，{number_of_epoch}"
        return CHINESE.get(match[0], match[0])

    lines = text.split("\n")
    return "\n".join(re.sub(r"(?<=\| ).+?(?= \|)", cell, line) if line.startswith("| ") else line for line in lines)


def headline(file: str) -> str:
    """The one table of a README: the small network beside its teacher, each figure with its goal."""
    chinese = file.endswith("zh-CN.md")
    heads = (
        ("小网络与教师相比", "实测", "目标", "达成")
        if chinese
        else ("the small network beside its teacher", "measured", "goal", "met")
    )
    words = {True: "是", False: "**否**"} if chinese else {True: "yes", False: "**no**"}
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|"]
    waiting: list[str] = []
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name in dict.fromkeys(name for name, _, _ in HEADLINE):
        found |= {(name, entry["what"]): entry for entry in (results(name) or {"targets": []})["targets"]}
    for name, what, translated in HEADLINE:
        entry, title = found.get((name, what)), translated if chinese else what
        if entry is None or entry["met"] is None:
            waiting.append(title)
        else:
            lines.append(f"| {title} | {number(entry['measured'])} | {goal(entry)} | {words[entry['met']]} |")
    if waiting:
        lines += [
            "",
            f"{'未运行：' if chinese else 'Not run: '}{'；'.join(waiting) if chinese else '; '.join(waiting)}.",
        ]
    return "\n".join(lines)


def detail(rows: list[dict[str, Any]]) -> list[str]:
    """The rows behind the targets: accuracies and drops with their intervals, or times with their spread."""

    def pm(value: Any, ci95: Any) -> str:
        return number(value) + (f" ± {number(ci95)}" if ci95 is not None else "")

    seeds = [row for row in rows if "lost, digits" in row]
    sampled = [row for row in rows if row.get("n") and row.get("unit") in ("%", "points", "×")]
    timed = [row for row in rows if "what" in row and ("ms" in row or "us" in row)]
    lines = [
        *by_ratio(rows),
        *by_share(rows),
        *by_stream(rows),
        *listed(rows, "head"),
        *listed(rows, "method"),
        *listed(rows, "kills"),
        *listed(rows, "half"),
        *listed(rows, "augmentation"),
        *listed(rows, "augment"),
        *listed(rows, "domain"),
        *listed(rows, "from → to"),
        *listed(rows, "training, epoch"),
        *listed(rows, "VGG"),
        *listed(rows, "chain"),
        *listed([row for row in rows if next(iter(row)) == "way" and "CPU s" in row], "way"),
        *listed([row for row in rows if next(iter(row)) == "concepts"], "concepts"),
        *listed([row for row in rows if next(iter(row)) == "side" or "megabytes" in row], "side"),
        *by_text(rows),
        *by_task(rows),
        *memory(rows),
    ]
    if sampled:
        lines += ["", "| figure | seed 0 ± CI95 | n | mean of seeds ± CI95 |", "|---|---|---|---|"]
        for row in sampled:
            unit = row["unit"]
            one = pm(row["seed 0"], row.get("ci95 within seed 0"))
            many = pm(row["mean of seeds"], row.get("ci95 over seeds"))
            lines.append(f"| `{row['what']}` | {one} {unit} | {row['n']} | {many} {unit} |")
    if seeds:
        names = [name for name in seeds[0] if name != "what"]
        lines += ["", f"| seed | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for row in seeds:
            cells = (value if isinstance(value := row[name], str) else number(value) for name in names)
            lines.append(f"| {row['what'].removeprefix('seed ')} | {' | '.join(cells)} |")
    if timed:
        lines += ["", "| figure | median | least – most | beside the peer |", "|---|---|---|---|"]
        for row in timed:
            unit = "ms" if "ms" in row else "µs"
            ratio = ""
            if "beside" in row:
                low, high = number(row["ratio low"]), number(row["ratio high"])
                ratio = f"{number(row['times as long'])} times ({low} – {high}), {row['beside']}"
            value = number(row.get("ms", row.get("us")))
            lines.append(f"| {row['what']} | {value} {unit} | {number(row['low'])} – {number(row['high'])} | {ratio} |")
    return lines


def by_text(rows: list[dict[str, Any]]) -> list[str]:
    """Bits a byte of models of texts, of each part of the text."""
    found = [row for row in rows if "text model" in row]
    left_out = ("steady", "after the", "% over", "seeds")
    return listed(
        [{name: row[name] for name in row if not any(each in name for each in left_out)} for row in found], "text model"
    )


def by_task(rows: list[dict[str, Any]]) -> list[str]:
    """A table for each task on texts, whose figures are of different kinds."""
    told = [row for row in rows if "what" in row and ("auroc" in row or "right" in row)]
    tasks = dict.fromkeys(row["what"] for row in told)
    return [line for task in tasks for line in listed([row for row in told if row["what"] == task], "what")]


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


def by_share(rows: list[dict[str, Any]]) -> list[str]:
    """Networks pruned to a share of their work: accuracy before training and after it, a column for each network and share."""
    found = [row for row in rows if "share" in row and isinstance(row.get("before training"), float)]
    if not found:
        return []

    def cell(row: dict[str, Any] | None) -> str:
        if row is None:
            return "–"
        after = row["after an epoch"]
        return number(row["before training"]) + (f" → {number(after)}" if isinstance(after, float) else "")

    columns = list(dict.fromkeys((row["network"], row["share"]) for row in found))
    cells = {(row["way"], row["network"], row["share"]): row for row in found}
    seeds = max(row["seeds"] for row in found)
    heads = " | ".join(f"{network}, {share:g}" for network, share in columns)
    lines = [
        "",
        f"| %, before → after, {seeds} seed{'s' if seeds > 1 else ''} | {heads} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [
        f"| {way} | {' | '.join(cell(cells.get((way, *column))) for column in columns)} |"
        for way in dict.fromkeys(row["way"] for row in found)
    ]
    originals = {(row["network"], row["share"]): number(row["original"]) for row in found}
    return [*lines, f"| the original | {' | '.join(originals[column] for column in columns)} |"]


def by_stream(rows: list[dict[str, Any]]) -> list[str]:
    """Learners of streams: accuracies, then rates; a row for each learner, a column for each stream."""
    found = [row for row in rows if "stream" in row and "learner" in row]
    if not found:
        return []
    streams = list(dict.fromkeys(row["stream"] for row in found))
    learners = list(dict.fromkeys(row["learner"] for row in found))
    cells = {(row["learner"], row["stream"]): row for row in found if row["seeds"]}
    lines: list[str] = []
    for head, text in (("accuracy, % (seeds)", accuracy), ("events a CPU second", rate)):
        lines += ["", f"| {head} | {' | '.join(streams)} |", "|---" * (len(streams) + 1) + "|"]
        for learner in learners:
            here = [cells.get((learner, stream)) for stream in streams]
            lines.append(f"| {learner} | {' | '.join('–' if row is None else text(row) for row in here)} |")
    waiting = len(learners) * len(streams) - len(cells)
    return lines + (["", f"– was not run: {waiting} of {len(learners) * len(streams)}."] if waiting else [])


def accuracy(row: dict[str, Any]) -> str:
    half = row.get("ci95 over seeds")
    return f"{row['accuracy']:.2f}" + (f" ± {half:.2f} ({row['seeds']})" if half is not None else " (1)")


def rate(row: dict[str, Any]) -> str:
    return f"{row['events a CPU second']:,.0f}"


def listed(rows: list[dict[str, Any]], key: str) -> list[str]:
    """The rows that have a key, every figure of them."""
    found = [row for row in rows if key in row]
    names = [name for name in dict.fromkeys(name for row in found for name in row) if not name.endswith(" over seeds")]
    if not found:
        return []

    def cell(row: dict[str, Any], name: str) -> str:
        value, half = row.get(name), row.get("ci95 over seeds") if name in ("accuracy", "error %") else None
        text = value if isinstance(value, str) else number(value)
        return text + (f" ± {number(half)}" if half is not None else "")

    lines = ["", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return lines + [f"| {' | '.join(cell(row, name) for name in names)} |" for row in found]


def memory(rows: list[dict[str, Any]]) -> list[str]:
    """How much memory there was in use at a time."""
    found = [row for row in rows if "MiB" in row and row["what"].startswith("resident memory")]
    if not found:
        return []
    lines = ["", "| figure | MiB |", "|---|---|"]
    return lines + [f"| {row['what']} | {number(row['MiB'])} |" for row in found]


def figure(name: str, what: str) -> str:
    """What was measured for one goal, with the goal; an unmet one says so."""
    found = [entry for entry in (results(name) or {"targets": []})["targets"] if entry["what"] == what]
    if not found:
        sys.exit(f"benchmarks/results/{name}.json has no goal '{what}'")
    entry = found[0]
    if entry["met"] is None:
        return f"not run (goal {goal(entry)})"
    return f"{number(entry['measured'])} (goal {goal(entry)}{'' if entry['met'] else ', **not met**'})"


def names() -> str:
    """One row a family, its mappings beside it: what ``mapsto list`` prints."""
    from mapsto import discovery
    from mapsto.cli.catalog import groups

    families: dict[str, list[str]] = {}
    for name in discovery.entries("mappings"):
        family, _, rest = name.partition(".")
        families.setdefault(family, []).append(f"`{rest}`")
    for group in groups():
        if group != "mappings":
            families[group] = [f"`{name.removeprefix(f'{group}.')}`" for name in discovery.entries(group)]
    rows = [f"| `{family}` | {', '.join(members)} |" for family, members in families.items()]
    return "\n".join(["| family | mappings |", "|---|---|", *rows])


def filled(text: str, file: str) -> str:
    """A page with every marked part written anew."""

    def part(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        body = {"table": lambda: table(name), "headline": lambda: headline(file), "names": names}[kind]()
        if kind == "table" and file.endswith("zh_CN.py"):
            body = in_chinese(body)
        lines = [*body.split("\n"), "<!-- end -->"]
        if file.endswith(".py"):  # a cell of a tutorial's source is a comment
            lines = [f"# {line}".rstrip() for line in lines]
        return "\n".join([f"{match[0].partition('-->')[0]}-->", *lines])

    def within(match: re.Match[str]) -> str:
        return f"{match[1]}{figure(match[2], match[3])}<!-- end -->"

    text = re.sub(r"(<!-- figure (\w+): (.+?) -->).*?<!-- end -->", within, text)
    return re.sub(r"<!-- (table|headline|names)(?: (\w+))? -->\n.*?<!-- end -->", part, text, flags=re.DOTALL)


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
