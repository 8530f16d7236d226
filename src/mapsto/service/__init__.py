"""A small compressed model behind a standard protocol, which adapts to a few examples and learns from feedback (extra `serve`)."""
