"""Make a network smaller: drop channels, heads, blocks, rows or ranks within a budget, or set single weights to zero."""
