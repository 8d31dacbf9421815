"""Shards that lie elsewhere: fetched ahead of use into a bounded cache, and never trusted."""
