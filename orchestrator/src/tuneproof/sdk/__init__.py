"""Asynchronous clients of the four services."""
