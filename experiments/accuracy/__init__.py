"""Studies of accuracy."""
