"""Learn from a stream, event by event: each is answered before its label is seen, and learnt from after."""
