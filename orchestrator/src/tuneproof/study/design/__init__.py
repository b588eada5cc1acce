"""What a study is before it runs: its file, its plan, its model, judge and rubrics.

spec, specfile   what the file may say, and reading it
arms             its arms: what each is tuned on, and what its prompt holds; on `section`
plan             the grid of cells over the split data
identity         model, judge and rubrics as content: from files, or as running services say
prepare          file, data and flags together
"""
