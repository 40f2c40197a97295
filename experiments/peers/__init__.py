"""The competitors of `benchmark_peers.py`, each a process of its own."""
