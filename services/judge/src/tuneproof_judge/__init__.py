"""The judge: scores answers by G-Eval and by their words."""
