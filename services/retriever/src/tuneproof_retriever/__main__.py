"""`python -m tuneproof_retriever` runs the service."""

from tuneproof_retriever.main import main

raise SystemExit(main())
