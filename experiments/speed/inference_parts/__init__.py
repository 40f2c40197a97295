"""Workers and report of `experiments.speed.inference`."""
