"""`python -m tuneproof_judge` is the console script."""

from tuneproof_judge.main import main

raise SystemExit(main())
