"""Where passages live.

    protocol       `VectorStore`: what every store does; tests/test_retriever_store.py checks it
    lance_store    a folder, by LanceDB
    ├── lance_rows     passages as Arrow rows, and filters as SQL
    └── lance_folders  a folder for each corpus, made and removed in one step

Another store is a module beside `lance_store`, a value of `--store`, and a fixture of that test.
"""
