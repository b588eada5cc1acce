"""The retriever: keeps frozen corpora of passages and searches them.

servicer, messages, limits     the gRPC face, and what it accepts
├── corpora -> ingestion, freezing   the life of a corpus
│   └── proving, first_look          whether its passages are found, and whether it changed
└── searching -> ranking             answers, their order and their fusion
corpus                         the values
chunking -> structure          how a text becomes passages
token_offsets                  the tokens of long texts
stores/                        where passages live
embedders/                     what turns text into vectors
reranking/                     what reads the best passages again
models -> endpoint, tei        opens models, in this process or on a server
"""
