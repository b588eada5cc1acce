"""Studies: arms by sizes by seeds, planned, executed, and read back as results."""
