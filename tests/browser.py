"""A page in Chromium, if there is one: what a test cannot see in the text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["CHROMIUM", "in_a_browser"]

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


def in_a_browser(page: str, tmp_path: Path, width: int) -> dict[str, Any]:
    """How wide the page gets in a window of that width, what it loads, whether its button opens all, and how many pictures are broken.

    Fails where there is a message on the console.
    """
    framed = json.dumps(page).replace("</", "<\\/")
    frame = f"width:{width}px;height:3000px;border:0"
    probe = f"""<!doctype html><meta charset="utf-8"><iframe id="f" style="{frame}"></iframe>
<script>
const f = document.getElementById("f");
f.addEventListener("load", () => {{
  const d = f.contentDocument;
  d.getElementById("expand").click();
  document.title = JSON.stringify({{
    wide: d.documentElement.scrollWidth,
    loaded: f.contentWindow.performance.getEntriesByType("resource")
      .map((e) => e.name).filter((n) => !n.startsWith("data:")),
    open: [...d.querySelectorAll("details")].every((e) => e.open),
    broken: [...d.images].filter((i) => !i.naturalWidth).length,
  }});
}});
f.srcdoc = {framed};
</script>"""
    (tmp_path / "probe.html").write_text(probe, encoding="utf-8")
    quiet = [
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        *quiet,
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += [
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--virtual-time-budget=4000",
        "--window-size=1300,3000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, f"file://{tmp_path / 'probe.html'}"], capture_output=True, text=True, timeout=90, check=True
    )
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found, done.stdout[:300]
    assert "CONSOLE" not in done.stderr
    return json.loads(found[1])
