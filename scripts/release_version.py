"""Whether a tag is the version of this checkout: ``python scripts/release_version.py v0.2.0``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_VERSIONS = Path(__file__).parents[1] / "runtime/src/mapsto_runtime/__init__.py"


def main() -> int:
    """The exit code: 0 where they are one, 2 otherwise."""
    (tag,) = sys.argv[1:] or ("",)
    found = re.search(r'^__version__ = "(.+)"$', _VERSIONS.read_text(encoding="utf-8"), re.MULTILINE)
    version = found.group(1) if found is not None else ""
    if tag == f"v{version}":
        return 0
    sys.stderr.write(f"the tag {tag or '(none)'} is not v{version}, which {_VERSIONS.name} says: change one of them\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
