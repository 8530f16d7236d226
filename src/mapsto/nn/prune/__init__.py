"""Pruning: which channels are one, how important they are, which of them a budget keeps; single weights, heads, blocks and ranks."""
