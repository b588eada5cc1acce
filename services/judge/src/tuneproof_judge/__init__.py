"""The judge: grades answers by G-Eval, and scores them by their words."""
