"""LeJEPA's SIGReg as substitutions in SimSiam: a loss, and a gradient policy for several views."""
