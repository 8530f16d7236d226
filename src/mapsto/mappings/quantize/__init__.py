"""Compute with numbers of fewer bits; what stays in float, and why, is said."""
