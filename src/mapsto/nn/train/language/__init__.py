"""Further pretraining of text encoders on texts without labels: what its three mappings share."""
