"""From a labelled source to a target that has no labels, or few: what the mappings of domain transfer share."""
