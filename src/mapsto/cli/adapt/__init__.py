"""``mapsto adapt``: from photos or a table to a package."""
