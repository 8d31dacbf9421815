"""What a representation is worth: features, protocols, and the verdict on a run."""
