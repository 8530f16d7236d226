"""From a trained network and a few labelled examples to a model for them."""
