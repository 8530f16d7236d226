"""Meta-learning: the one outer loop and its gradient, how learners adapt (`adaptation/`), and the rules of inner steps (`updates/`)."""
