"""Parts of long_sequences."""
