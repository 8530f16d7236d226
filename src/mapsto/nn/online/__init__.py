"""Online learning: events as rows of numbers that grow with the stream, labels that come late, the loop of every online learner."""
