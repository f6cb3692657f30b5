"""Optimisers behind one protocol; make one with registry.create."""
