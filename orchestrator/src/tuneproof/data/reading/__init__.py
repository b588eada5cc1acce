"""What files, folders and names of data sets hold, record by record.

documents     the documents that a path or a name means
├── lines     JSON Lines, packed by gzip or not, and BEIR's files
├── folders   Markdown, text and PDF
└── hub       data sets of Hugging Face
tables        CSV
whole         files that are one JSON value
records       a document, or a record that cannot be used
"""
