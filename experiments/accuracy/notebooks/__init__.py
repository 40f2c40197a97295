"""Five common notebooks: their recipes, and what the runs show of their claims."""
