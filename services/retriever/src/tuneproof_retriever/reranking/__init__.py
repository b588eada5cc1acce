"""Reads what a search found again, together with the query.

protocol       `Reranker`: what every reranker does, and the order that its scores give
cross_encoder  a model in this process, by sentence-transformers
tei_reranker   a server of Text Embeddings Inference
"""
