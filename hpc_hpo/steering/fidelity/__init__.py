"""Early stopping as policies over pause and resume: which trials go on from a rung, and how far."""
