"""Parts of the study that compiles for accelerators."""
