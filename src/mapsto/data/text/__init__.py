"""Words of texts that a network reads as token ids."""
