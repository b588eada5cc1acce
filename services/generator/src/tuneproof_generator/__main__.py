"""`python -m tuneproof_generator`. vLLM's engine core begins here too, by another name."""

from tuneproof.servicekit.imports import leave_out
from tuneproof_generator.main import main

# transformers imports it where it is installed, for what nothing here uses.
leave_out("sklearn")

if __name__ == "__main__":
    raise SystemExit(main())
