"""What `tuneproof study` does with results: diff, export, import, gc."""
