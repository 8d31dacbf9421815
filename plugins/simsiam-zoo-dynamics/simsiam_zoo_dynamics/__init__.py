"""Predictors that follow the correlation of z, and a stop-gradient that follows distances."""
