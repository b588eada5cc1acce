"""What a study is before anything runs: its file, its plan, and what stands behind the services.

spec, specfile   what the file may say, and reading it
plan             the grid of cells over the split data
identity         model, judge and rubrics as content: from files, or as running services say
prepare          file, data and flags together
"""
