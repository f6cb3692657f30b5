"""The steering loop and its policies: what a study does between its first and last trial."""
