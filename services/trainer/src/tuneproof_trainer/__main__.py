"""`python -m tuneproof_trainer` starts the service."""

from tuneproof_trainer.main import main

raise SystemExit(main())
