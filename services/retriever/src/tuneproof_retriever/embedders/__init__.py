"""What turns text into vectors.

    protocol           `Embedder`: what every embedder does
    sentence_embedder  a model in this process, by sentence-transformers
    ├── query_batches      queries that wait are embedded together
    └── model_folder       finds the model, and takes the digest of its content
    tei_embedder       a server of Text Embeddings Inference
    openai_embedder    a server that speaks OpenAI's protocol
    ├── text_batches       divides texts into requests
    └── local_tokens       a tokenizer in this process

Another embedder is a module beside these, and a branch where `models` opens it.
"""
