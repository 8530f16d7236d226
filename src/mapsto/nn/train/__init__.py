"""Training: the one loop, the optimizer, batches, losses, and calibration batches."""
