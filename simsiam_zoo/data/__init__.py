"""Shards to batches: which sample when (`order`), its bytes (`shards`), its views (`image`).

Importing this package imports neither torch nor OpenCV; `image` and `loader` do.
"""
