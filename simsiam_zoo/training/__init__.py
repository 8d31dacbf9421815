"""One run: its setup, its loop, its record."""
