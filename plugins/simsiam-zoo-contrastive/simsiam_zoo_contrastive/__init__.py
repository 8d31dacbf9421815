"""SimCLR as a substitution in SimSiam: another loss, no predictor, no stop-gradient."""
