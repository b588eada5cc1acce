"""What a study is before it runs: its file, its plan, its model, judge and rubrics.

spec, specfile   what the file may say, and reading it; `model_mistakes`: of its models
arms             its arms: what each is tuned on, and what its prompt holds; on `section`
models           its models: bases, which are tuned, and API models, which are only asked
plan             the grid of cells over the split data
sources          where models, judge and rubrics come from: file and flags
identity         models, judge and rubrics as content: from files, or as running services say
certifying       whether the judge has the certificates that the file asks for
looks            which questions are asked before each interim look
prepare          file, data and flags together
"""
