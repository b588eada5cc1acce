"""The retriever: keeps frozen corpora of passages and searches them.

servicer, messages, limits     the gRPC face, and what it accepts
├── corpora -> ingestion, freezing   the life of a corpus
└── searching -> ranking             answers, their order and their fusion
corpus                         the values
chunking -> structure          how a text becomes passages
stores/                        where passages live
embedders/                     what turns text into vectors
"""
