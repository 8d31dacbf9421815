"""The method itself: five parts in the paper's letters, and the built-in parts beside it."""
