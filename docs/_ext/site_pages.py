"""What the site adds to Sphinx: the reference is written, tutorials are read from their notebooks, formulas become MathML.

Nothing here needs a network, when the site is built nor when it is read.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from myst_parser.parsers.sphinx_ import MystParser

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

sys.path.insert(0, str(Path(__file__).parent))

import reference
import tutorials

__all__ = ["setup"]

DOCS = reference.ROOT / "docs"
MADE = DOCS / "reference"
"""What is generated; git passes it over."""
FIGURES = MADE / "figures"
TREES = {
    "benchmarks/README": "```{toctree}\n:hidden:\n:glob:\n\n[a-z]*\n../reference/papers/index\n```\n",
    "decisions/README": "```{toctree}\n:glob:\n:maxdepth: 1\n\n0*\n```\n",
}
"""Page that is read in the repository, too → its table of contents, which only the site can have."""
MOVED = {"../../benchmarks/meta": "../reference/papers/index.md"}
"""Where a link of a page leads in the repository → the page of the site that holds the same."""


class NotebookParser(MystParser):
    """A notebook as a page: its text as it is, its cells as code, each with what it printed and drew when it was run."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        source = Path(document["source"]).with_suffix(".py")
        # Else a page would stay as it was before its cells were run.
        document.settings.record_dependencies.add(str(tutorials.kept(source, FIGURES)))
        found = iter(tutorials.outputs(source, FIGURES) or ())
        parts = ['---\nmyst:\n  enable_extensions: ["dollarmath"]\n---']
        for cell in json.loads(inputstring)["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(text)
                continue
            parts.append(f"```python\n{text}\n```")
            left = next(found, {"text": "", "figures": []})
            if left["text"].strip():
                parts.append(f"```text\n{left['text'].rstrip()}\n```")
            parts += [f"![{each['title']}](../reference/figures/{each['file']})" for each in left["figures"]]
        super().parse("\n\n".join(parts) + "\n", document)


def generate(app: Sphinx) -> None:
    """Everything that is made before pages are read."""
    if not app.config.site_generate:
        return
    papers = {f"papers/{name}": text for name, text in _papers().items()}
    reference.write(MADE, reference.pages() | papers)
    for source in sorted((DOCS / "tutorials").glob("*.py")) if app.config.site_run_tutorials else []:
        if tutorials.outputs(source, FIGURES) is None:
            subprocess.run([sys.executable, str(Path(tutorials.__file__)), str(source), str(FIGURES)], check=True)


def _papers() -> dict[str, str]:
    """Figures of papers beside ours, a page a method, as the benchmark wrote them."""
    sources = sorted((reference.ROOT / "benchmarks" / "meta").glob("*.md"))
    found = {
        path.name: path.read_text("utf-8").replace("](rows/", "](../../../benchmarks/meta/rows/") for path in sources
    }
    head = "# Papers and ours\n\nOne page a method: the paper's figure, ours with its interval, and the line that runs it again.\n"
    listed = "\n".join(path.stem for path in sources)
    found["index.md"] = f"{head}\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    return found


def adjust(app: Sphinx, docname: str, content: list[str]) -> None:
    """Pages of the repository as the site needs them."""
    for here, there in MOVED.items():
        content[0] = content[0].replace(f"]({here})", f"]({there})")
    if docname in TREES:
        content[0] += "\n" + TREES[docname]
    if docname == "tutorials/README":
        path = "\n".join(re.findall(r"\]\((\w+)\.ipynb\)", content[0]))
        content[0] += f"\n```{{toctree}}\n:hidden:\n\n{path}\n```\n"


def inline_formula(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def formula(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{latex2mathml.tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_config_value("site_generate", True, "", bool)
    app.add_config_value("site_run_tutorials", True, "", bool)
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
    app.connect("builder-inited", generate)
    app.connect("source-read", adjust)
    return {"parallel_read_safe": True}
