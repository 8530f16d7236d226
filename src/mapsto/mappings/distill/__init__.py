"""Train a small network to answer, or to compute, as a large one does."""
