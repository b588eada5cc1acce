"""A study: from its file to what it found.

design ──→ steps.chain ──→ run ──→ collect ──→ tuneproof.results
  │            │            │
the file,    each piece    asks the services
its plan     of work by    for what is missing
             its inputs    and keeps it in `state`
"""
