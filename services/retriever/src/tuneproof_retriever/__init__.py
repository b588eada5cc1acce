"""Keeps frozen corpora of passages and searches them."""
