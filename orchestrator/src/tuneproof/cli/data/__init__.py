"""`tuneproof data …`: the data set of a study."""
