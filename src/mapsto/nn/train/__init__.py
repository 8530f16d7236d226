"""Training: the one loop, the optimiser, batches, losses, and samples that are looked at without being trained on."""
