"""Data sets: questions with reference answers, and the documents that hold the answers."""

from tuneproof.data.items import Dataset, Document, Item, JudgeForm

__all__ = ["Dataset", "Document", "Item", "JudgeForm"]
