"""Where a network keeps the head of a masked language model."""

from __future__ import annotations

__all__ = ["HEAD"]

HEAD = "masked_language.safetensors"
"""The asset in which a network keeps the head of its masked language model."""
