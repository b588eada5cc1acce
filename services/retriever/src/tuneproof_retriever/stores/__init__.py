"""Where passages live.

    protocol       `VectorStore`: what every store does; tests/test_retriever_store.py checks it
    lance_store    a folder, by LanceDB
    ├── lance_rows     passages as Arrow rows, and filters as SQL
    └── lance_folders  a folder for each corpus, made and removed in one step
    weaviate_store a Weaviate server, which several retrievers may share
    ├── weaviate_records     a collection for each corpus, its record, and who may change it
    ├── weaviate_schema      what a collection is made of
    ├── weaviate_seeds       keeps its quantised index whole
    ├── weaviate_objects     passages as objects
    ├── weaviate_batches     writing and deleting them
    ├── weaviate_connection  the connection, and what its failures mean
    └── word_stems           the words that LanceDB would index
    tags           metadata as marks, for both

Another store is a module beside these, a value of `--store`, and a fixture of that test.
"""
