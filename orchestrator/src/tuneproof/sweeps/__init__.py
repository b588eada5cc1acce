"""Sweeps: runs with several hyper-parameters, from which the validation loss chooses.

spec      the sweep's file
search    which point is next: the grid, or Optuna
running   trains the points and ranks them
"""
