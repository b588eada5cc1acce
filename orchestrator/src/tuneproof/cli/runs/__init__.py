"""`tuneproof runs …`: commands that call a trainer.

commands   create, list, show, cancel, watch
planning   plan, preview
comparing  compare
sweeping   sweep
asking     what a run is asked for: flags and YAML
following  a run's state, pace and curve while it goes on
curves     loss curves in characters
drawing    the same as SVG
figures    what is told of a run: numbers, differences between runs
completing ids for the shell
tables     runs on the terminal and as JSON
"""
