"""A page to draw on, and predictions over HTTP, on this machine alone."""
