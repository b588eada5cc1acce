"""What every tuneproof server and client needs and no service owns."""
