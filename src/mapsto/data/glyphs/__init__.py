"""Characters drawn from the fonts of the matplotlib wheel."""
