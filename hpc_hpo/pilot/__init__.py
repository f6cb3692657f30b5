"""Pilots: blocks of workers that run slices. `base` is the protocol, one file for each kind."""
