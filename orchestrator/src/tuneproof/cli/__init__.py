"""The command `tuneproof`."""
