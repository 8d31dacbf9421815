"""What a run is: its recipe, and the lock of what supplied each part. No torch here."""

from simsiam_zoo.recipe.recipe import Recipe

__all__ = ["Recipe"]
