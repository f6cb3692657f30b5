"""Where the steering process lives: in the background of a login node, or inside batch jobs."""
