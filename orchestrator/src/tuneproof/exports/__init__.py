"""A study's results for other programs, and against another study's.

tables        CSV and Parquet
promptfoo     the JSON that `promptfoo import` reads
inspect_log   logs of Inspect (.eval)
mlflow_runs   runs of MLflow; imported late, as it is an extra
sides         a study file or a results file, as one of two sides
differences   what differs between two sides
"""
