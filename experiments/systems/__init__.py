"""The parts of `reproduce.py`."""
