"""Recipes that search, made from a network, data and limits."""
