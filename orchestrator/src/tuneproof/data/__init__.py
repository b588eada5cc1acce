"""Data sets: questions with reference answers, and the documents that hold the answers.

sources          what a study file can name, and its keys
├── loaders      one for each format: from files to a `Dataset`
├── telecom      the demo's world, made by a program (with telecom_grammar and telecom_forms)
└── joining      which questions stay, and which documents without evidence are added
splits           tuning and test, by cluster
evaluation       whether passages bring the evidence
examining        counts, missing parts, duplicates, near-duplicates, lengths in tokens
reading          files of documents and records, whatever is made of them
items            the value classes; components: connected components
"""

from tuneproof.data.items import Dataset, Document, Item, JudgeForm

__all__ = ["Dataset", "Document", "Item", "JudgeForm"]
