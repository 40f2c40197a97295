"""Parts of lengths."""
