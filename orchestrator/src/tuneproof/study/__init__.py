"""Studies: arms × sizes × seeds, planned, executed, and read back as results."""
