"""Services that the studio looks at."""

from __future__ import annotations

__all__ = ["Services"]


class Services:
    """A service."""
