"""`tuneproof corpus …`: corpora of one's own."""
