"""The work of a study, step by step.

chain       the heart: every piece of work by its inputs, as far as it can be known now
searches    what is searched, and for what; `pairs`: what tuning and examples show
graph       trainings, answers and grades, each begun when what it needs is there
work        a service's lane: asks for what comes in, keeps each output, asks again for the rest
tally       counts, times and shows the stages under way
retrieval → training → answering → judging     the steps that call the services
checks      the instruments themselves: the reader and the judge on known ground
"""
