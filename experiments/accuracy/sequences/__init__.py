"""Part of long_sequences."""
