"""`tuneproof judge …`: rubrics, and whether a judge can be believed."""
