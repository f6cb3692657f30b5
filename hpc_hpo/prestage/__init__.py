"""Bringing a study's inputs into its folder before any job runs, with a manifest to prove it."""
