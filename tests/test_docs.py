"""The site's pages say what there is: generated ones hold every field, written ones name what exists and figures that were measured."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import mapsto
from mapsto import discovery
from mapsto.cli.catalog import recipes
from mapsto.cli.main import app
from mapsto.errors import SpecError
from mapsto.recipe.reader import parse_recipe
from mapsto.run.executor import execute
from mapsto.search.space import parse_space
from tests.test_readme import PAGES, SITE

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "docs" / "_ext" / "reference.py")
assert _spec is not None
assert _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
sys.modules["docs_reference"] = reference
_spec.loader.exec_module(reference)


def rows(page: str) -> list[list[str]]:
    """The cells of every row of every table of a page."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


# ------------------------------------------------------------------------------------------------------------- reference


@pytest.mark.parametrize("space", list(reference.spaces()))
def test_every_name_has_a_page_with_all_its_fields(space: str) -> None:
    """Each with its type, default and meaning, and with a recipe that `parse_recipe` reads."""
    assert len(reference.introduction(space).split()) > 5
    for each in reference.spaces()[space]:
        page = reference.page(each)
        fields: dict[str, Any] = discovery.find(each.group, each.name).__pydantic_fields__
        first = page.partition("## Fields")[2].partition("## In a recipe")[0].partition("\n### ")[0]
        found = {row[0].strip("`"): row for row in rows(first)[1:]}
        assert list(found) == list(fields), each.name
        for name, (_, kind, default, meaning) in found.items():
            assert kind, f"{each.name}.{name}"
            assert default, f"{each.name}.{name}"
            assert len(meaning) > 3, f"{each.name}.{name}"
            assert (default == "**required**") == fields[name].is_required(), f"{each.name}.{name}"
        assert "```yaml\nschema: 1\n" in page, "which `example` has read"
        assert f"# {each.title}\n" in page


def test_pages_of_a_family_link_to_each_member_and_name_ranges_errors_and_uses() -> None:
    taylor = next(each for each in reference.named() if each.name == "prune.taylor")
    page = reference.page(taylor)
    assert "| `macs` | number in (0, 1] or null | `null` | Multiply-accumulates of one sample, as a share" in page
    assert "*Network → Network, version" in page
    assert "Molchanov et al." in page
    assert "[`DomainError`](../../errors.md#domainerror)" in page
    assert "- Recipes: `demo`" in page
    assert "[`prune_cifar10`](../../benchmarks/compression.md)" in page
    assert ">>> accuracy(Taylor(" in page
    family = reference.family("prune", reference.spaces()["prune"])
    assert all(f"]({each.short}.md)" in family for each in reference.spaces()["prune"])


def test_a_group_that_discovery_learns_of_gets_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the data sets do here under another name."""
    monkeypatch.setitem(discovery.FOLDERS, "tables", "data/sets")
    reference.named.cache_clear()
    discovery.entries.cache_clear()
    try:
        found = [each for each in reference.named() if each.group == "tables"]
        assert len(found) == len(discovery.entries("data"))
        assert found[0].page == f"tables/{found[0].name}"
        assert found[0].title == f"tables.{found[0].name}"
    finally:
        reference.named.cache_clear()
        discovery.entries.cache_clear()


def test_prose_keeps_code_and_escapes_the_rest() -> None:
    assert reference.prose("a * b < c, [1] and `x * y`", root="..") == r"a \* b \< c, \[1\] and `x * y`"
    assert reference.prose("``a | b`` or c", root="..", cell=True) == r"``a \| b`` or c"
    assert reference.prose("see `SpecError`", root="../..") == "see [`SpecError`](../../errors.md#specerror)"


def test_errors_that_pages_link_to_have_their_section() -> None:
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    assert [name for name in reference._errors() if f"\n### {name}\n" not in text] == []


NOT_HERE = {
    "export.executorch": "needs the extra edge",
    "export.litert": "needs the extra edge",
    "export.openvino": "needs the extra edge",
    "networks.checkpoint": "reads a file of the reader's",
    "networks.saved": "reads a folder of the reader's",
    "networks.timm": "needs the extra timm",
    "prune.embedding_rows": "reads a file of the reader's",
    "distill.static": "reads a file of the reader's",
    "prune.vocabulary": "reads a file of the reader's",
    "arrays": "reads a file of the reader's",
    "images": "reads a file of the reader's",
    "csv": "reads a file of the reader's",
    "folder": "reads a folder of the reader's",
    "friedman": "has numbers to predict, and the example's learner learns classes",
    "jsonl": "reads a file of the reader's",
    "label_shift": "reads a file of the reader's",
    "parquet": "reads a file of the reader's",
    "replay": "reads a file of the reader's",
    "table": "reads a file of the reader's",
    "tags": "reads a file of the reader's",
    "text": "reads a file of the reader's",
}
SMALL = {"epochs": 1, "steps": 2, "episodes": 5, "rounds": 1, "samples": 32, "iterations": 5, "seconds": 0.01}


@pytest.mark.slow
@pytest.mark.parametrize("each", reference.named(), ids=lambda each: each.name)
def test_the_example_of_a_page_runs(each: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fields that make it quick."""
    if each.name in NOT_HERE:
        pytest.skip(NOT_HERE[each.name])
    rows = [f"{a},{a * a % 7},{'high' if a > 10 else 'low'}" for a in range(20)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,column", *rows]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    tree = yaml.safe_load(reference.example(each))

    def quick(node: Any) -> None:
        for name, fields in list(node.items()) if isinstance(node, dict) else []:
            if name in discovery.entries("mappings") and isinstance(fields, dict):
                known = discovery.find("mappings", name).__pydantic_fields__
                fields.update({key: value for key, value in SMALL.items() if key in known})
            quick(fields)
        for part in node if isinstance(node, list) else []:
            quick(part)

    quick(tree["steps"])
    text = yaml.safe_dump(tree, sort_keys=False)
    try:
        execute(parse_recipe(text), store=tmp_path / "store")
    except SpecError as error:  # a field that is not what its name says elsewhere
        pytest.fail(f"{error}\n{text}")


# ---------------------------------------------------------------------------------------------------------- written pages


def test_every_recipe_of_a_page_can_be_read() -> None:
    found = {page: re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL) for page in SITE}
    assert sum(map(len, found.values())) >= 5
    for page, blocks in found.items():
        for block in blocks:
            (parse_space if "\nsearch:" in block else parse_recipe)(block, where=page)


def test_links_of_pages_lead_to_pages_of_the_reference() -> None:
    made = {ROOT / "docs" / "reference" / name for name in ("index.md", "papers/index.md")}
    made |= {ROOT / "docs" / "reference" / space / "index.md" for space in reference.spaces()}
    made |= {ROOT / "docs" / "reference" / f"{each.page}.md" for each in reference.named()}
    links = [
        (file, ((ROOT / file).parent / to).resolve())
        for file in PAGES
        for to in re.findall(r"\]\(([^)#\s]*reference/[^)#\s]+)", (ROOT / file).read_text("utf-8"))
    ]
    assert len(links) >= 30
    assert [(file, to.name) for file, to in links if to not in made] == []


def test_what_the_idea_asks_for_has_a_name_that_exists() -> None:
    """Each name between backticks: a mapping or family, a data set, a recipe, a field, a command, a module or a file."""
    text = (ROOT / "docs" / "idea.md").read_text("utf-8").partition("\n## ")[2]
    families = set(reference.spaces())
    classes = [discovery.find("mappings", name) for name in discovery.entries("mappings")]
    fields = {field for cls in classes for field in cls.__pydantic_fields__}
    plain = {*(each.name for each in reference.named()), *recipes(), *fields, "plateau", "--plan"}
    tree: Any = typer.main.get_command(app)
    groups = {name: getattr(command, "commands", {}) for name, command in tree.commands.items()}
    commands = {*groups, *(f"{name} {word}" for name, words in groups.items() for word in words)}

    def exists(name: str) -> bool:
        if name.startswith("mapsto "):
            return (
                " ".join(takewhile(str.islower, name.split()[1:])) in commands
            )  # what a reader fills in stands in capitals
        if name.startswith("mapsto."):
            return importlib.util.find_spec(name) is not None
        if name.endswith(".*"):
            return name.removesuffix(".*") in families
        if name == "service":
            return importlib.util.find_spec("mapsto.service") is not None
        return name in plain or (ROOT / name).exists()

    wrong: list[str] = []
    for row in rows(text):
        for part in (part for cell in row for part in cell.split(";")):
            later = "not built" in part or row[-1].startswith("not built yet")
            names = re.findall(r"`([^`]+)`", part)
            wrong += [f"{name}: {'is built' if later else 'does not exist'}" for name in names if exists(name) == later]
    assert wrong == []
    assert text.count("<!-- figure ") > 15


def test_the_reading_list_says_of_all_that_the_article_names_whether_it_was_found() -> None:
    """Papers, then books and courses, in the order of the page on the idea; every work cited says whether it was checked."""
    idea, reading = ((ROOT / "docs" / name).read_text("utf-8") for name in ("idea.md", "reading.md"))

    def named(text: str, start: str, end: str) -> list[list[str]]:
        return rows(text.partition(start)[2].partition(end)[0])[1:]

    papers = named(reading, "## The five papers", "### Feature")
    courses = named(reading, "## Its books and courses", "\n## ")
    asked = named(idea, "## Papers", "\n## "), named(idea, "## Courses and books", "\n## ")
    assert [len(papers), len(courses)] == [len(part) for part in asked] == [5, 5]
    assert [row[0].split()[:3] for row in papers] == [row[0].split()[:3] for row in asked[0]]
    assert all(re.match(r"\*\*(yes|likely|not traceable)\*\*", row[1]) for row in (*papers, *courses))
    cited = named(reading, "### Feature", "## Its books") + named(reading, "## One paper", "nothing comes after")
    works = [row for row in cited if row[0] != "read"]
    assert len(works) > 12
    assert [row[0] for row in works if not re.search(r"checked", row[0], re.IGNORECASE)] == []
    assert [row[0] for row in works if "](" not in row[2] and "the same two" not in row[2]] == []


def test_a_figure_never_begins_a_line() -> None:
    """Where a comment does, Markdown takes the whole line for HTML."""
    assert [
        page for page in SITE if re.search(r"^\s*<!-- figure", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    ] == []


def test_the_glossary_uses_the_words_of_the_chinese_readme() -> None:
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
    terms = {row[0]: row[1] for row in rows((ROOT / "docs" / "glossary.md").read_text("utf-8"))[1:]}
    assert len(terms) > 60
    assert list(terms) == sorted(terms, key=str.lower)
    assert all(re.search(r"[\u4e00-\u9fff]", word) for word in terms.values())
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", english, flags=re.DOTALL)
    used = [term for term in terms if re.search(rf"(?<!-)\b{re.escape(term)}s?\b", prose)]
    assert {"mapping", "recipe", "teacher", "multiply-accumulate"} <= set(used)
    said = {term: terms[term].partition("（")[0] for term in used}
    assert {term: word for term, word in said.items() if word not in chinese} == {}


def test_each_term_has_its_chinese_entry() -> None:
    """With the same word in both glossaries, and its meaning in Chinese; no two terms share a word."""
    english, chinese = (
        rows((ROOT / "docs" / name).read_text("utf-8"))[1:] for name in ("glossary.md", "glossary_zh_CN.md")
    )
    assert [row[:2] for row in chinese] == [row[:2] for row in english]
    assert [row[0] for row in chinese if len(re.findall(r"[\u4e00-\u9fff]", row[2])) < 4] == []
    words = [row[1] for row in chinese]
    assert sorted(set(words)) == sorted(words)


def test_citation_is_valid_and_of_this_version() -> None:
    """By the keys that the Citation File Format 1.2.0 requires, and those that it allows here."""
    tree = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(tree)
    assert set(tree) <= {
        "cff-version",
        "message",
        "title",
        "authors",
        "type",
        "version",
        "license",
        "abstract",
        "keywords",
    }
    assert tree["cff-version"] == "1.2.0"
    assert tree["type"] == "software"
    assert tree["license"] == "Apache-2.0"
    assert tree["version"] == mapsto.__version__
    assert all(set(author) == {"name"} for author in tree["authors"])


# -------------------------------------------------------------------------------------------------------------------- site


@pytest.mark.slow
def test_the_site_builds_and_a_broken_link_fails(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the extra docs")
    pytest.importorskip("myst_parser", reason="needs the extra docs")

    def build(*overrides: str) -> subprocess.CompletedProcess[str]:
        words = ["-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", *overrides]
        return subprocess.run(
            [sys.executable, *words, "docs", str(tmp_path / "html")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    done = build("-D", "site_run_tutorials=0")
    assert done.returncode == 0, done.stderr
    for each in reference.named():
        assert (tmp_path / "html" / "reference" / f"{each.page}.html").is_file()
    page = (tmp_path / "html" / "tutorials" / "from_zero_to_a_learner.html").read_text("utf-8")
    assert "<math" in page
    assert "cdn." not in page
    broken = ROOT / "docs" / "reference" / "broken.md"
    broken.write_text("---\norphan: true\n---\n\n# Broken\n\n[nowhere](nowhere.md)\n", encoding="utf-8")
    try:
        failed = build("-D", "site_generate=0", "-D", "site_run_tutorials=0")
    finally:
        broken.unlink()
    assert failed.returncode != 0
    assert "nowhere.md" in failed.stderr
