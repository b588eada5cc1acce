"""A study: from its file to what it found.

    design ──→ steps.chain ──→ run ──→ collect ──→ tuneproof.results
    the file,    each piece     asks the services for what is missing,
    its plan     of work by     and keeps each answer in `state`
                 its inputs

services   connects to the services; `local` starts them on this machine
api_models asks the models of others
forecast   what a plan would do, and take at the rates of earlier runs; `tokens` counts those of its
           prompts, `advice` warns of what cannot work or cannot be concluded
looking    interim looks: runs look after look, until all is decided
opened     a study that ran, for programs; `pruning` finds state that no study refers to
progress   how a study shows its progress; `status` tells what is done, from the state alone
"""
