"""Writing shards from what data sets come as."""
