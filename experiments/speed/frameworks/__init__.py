"""The parts of benchmark_frameworks.py. Free of imports: see `protocol`."""
