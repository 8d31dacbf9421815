"""Barlow Twins and VICReg as substitutions in SimSiam: losses over channels, not over images."""
