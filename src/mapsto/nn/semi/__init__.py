"""Learning from a few labelled examples and a pool without labels: on features, by training, and by finding classes."""
