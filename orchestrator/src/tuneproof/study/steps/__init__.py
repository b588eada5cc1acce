"""The work of a study, step by step.

chain       the heart: every piece of work by its inputs, as far as it can be known now
searches    what is searched, and for what; `pairs`: what tuning and examples show
graph       trainings, answers and grades, each begun when what it needs is there
work        a service's lane: asks for what comes in, keeps each output, asks again for the rest
tally       counts, times and shows the stages under way
importing   the answers of other systems, from files; `given`: as pieces of work
retrieval → training → answering → judging     the steps that call the services
serving     adapters in the generator: had served, and withdrawn
api_answering   instead, of models that are only asked
comparing   the judge says which of two answers is better, in both orders
forgetting  tasks of `lm_eval` before and after tuning
timing      a few answers once more, one at a time
probing     the judge's taste for length
checks      the instruments themselves: the reader and the judge on known ground
"""
