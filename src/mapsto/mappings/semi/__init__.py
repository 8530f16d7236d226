"""Learning from a few labelled examples and a pool of samples without labels."""
