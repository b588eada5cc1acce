"""`python -m tuneproof_generator`."""

from tuneproof_generator.main import main

if __name__ == "__main__":
    raise SystemExit(main())
