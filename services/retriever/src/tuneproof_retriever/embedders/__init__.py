"""What turns text into vectors.

    protocol           `Embedder`: what every embedder does
    sentence_embedder  a model in this process, by sentence-transformers
    ├── query_batches      queries that wait are embedded together
    └── model_folder       finds the model, and takes the digest of its content

Another embedder is a module beside `sentence_embedder`, and a branch where `main` loads it.
"""
