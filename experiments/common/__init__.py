"""What the studies share: runs, flags, tables, charts and reports."""
