"""Ablations: a study file in, trained arms, evaluations, verdicts and a report out."""
