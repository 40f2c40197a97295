"""A trained run as files that other programs can use."""
