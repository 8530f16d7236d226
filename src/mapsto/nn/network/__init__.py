"""A network as a value at work: its head, features, call sites, the forward pass, how it is built, compared and written down."""
