"""Adaptive Hierarchical Prior Alignment: train a DiT against its VAE's own features."""
