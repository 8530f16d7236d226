"""Train a network on labelled data."""
