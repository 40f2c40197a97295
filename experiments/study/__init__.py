"""What the studies share: many runs, their figures, the page beside them."""
