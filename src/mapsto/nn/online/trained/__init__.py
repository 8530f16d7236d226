"""Online learners whose network trains on the stream: events as raw samples, mini-batches, a network that grows, a memory of samples."""
