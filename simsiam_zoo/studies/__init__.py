"""Studies: an ablation is a substitution, and a table of a paper one command."""
