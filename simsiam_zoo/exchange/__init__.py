"""Weights that travel: backbones to other libraries and back, others' checkpoints to runs."""
