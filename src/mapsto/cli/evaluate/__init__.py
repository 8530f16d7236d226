"""``mapsto evaluate``: what a package is worth, on one page."""
