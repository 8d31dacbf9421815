"""Ablations: a base recipe and its substitutions, trained, judged and compared. No torch here."""
