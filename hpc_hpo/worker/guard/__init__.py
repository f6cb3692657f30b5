"""What keeps payloads off the network: an audit hook in their Pythons, a filter for all else.

This folder stands first on the PYTHONPATH of payloads; `sitecustomize.py` is read by every Python
they start, whichever that is, so it uses the standard library alone, and nothing of this package.
"""
