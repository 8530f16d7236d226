"""Heads for a few labelled examples: pure functions on embeddings, and how those are made and kept."""
