"""BYOL as a substitution in SimSiam: a target network that follows the online one slowly."""
