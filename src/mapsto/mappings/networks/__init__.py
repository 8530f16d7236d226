"""Where a recipe begins: a fresh network, or one with weights that were trained before."""
