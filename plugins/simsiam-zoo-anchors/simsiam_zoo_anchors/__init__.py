"""Presets with published figures to compare with: recipes alone, no code."""
