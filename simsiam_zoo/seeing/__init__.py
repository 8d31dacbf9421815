"""Looking at a trained network: its features in a file, a run as one page."""
