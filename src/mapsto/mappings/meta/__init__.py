"""Train a learner: a network that adapts to a new task from a few examples, or makes other trainings faster."""
