"""The machine under a run: folders, device, optimiser, checkpoints, progress."""
