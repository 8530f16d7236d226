"""A learned update rule, and how it is evolved."""
