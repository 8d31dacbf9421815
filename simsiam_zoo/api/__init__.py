"""What the commands do, as functions: the public Python API; `simsiam_zoo` hands the names on."""
