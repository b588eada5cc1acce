"""Corpora of one's own: what they are read from, and how well they are searched.

sources       what a path or a name holds, record by record
├── lines     JSON Lines, and BEIR's folders
├── folders   Markdown, text and PDF
└── hub       data sets of Hugging Face
topics        questions with their evidence
measuring     one search configuration: success, recall, reciprocal rank, nDCG by question
comparing     several of them: means and paired differences with intervals
"""
