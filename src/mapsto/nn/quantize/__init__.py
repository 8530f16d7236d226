"""Quantization: where quantizers stand, which range each covers, and how rounding is learned."""
