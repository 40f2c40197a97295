"""A run on disk: its files, its checkpoints, and which run a folder holds."""
