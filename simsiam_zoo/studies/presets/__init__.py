"""Studies that come by name."""
