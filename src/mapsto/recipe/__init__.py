"""Recipes: from YAML to mappings and back."""
