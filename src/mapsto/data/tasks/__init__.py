"""Distributions of few-shot tasks: drawn from labelled samples, generated, or from clusters."""
