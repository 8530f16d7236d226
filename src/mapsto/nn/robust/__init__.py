"""Inputs that are changed on purpose so that a network errs: attacks, and training and evaluation that take them into account."""
