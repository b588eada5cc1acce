"""All runs of one artifact store, which any number of trainers share.

runbook     create, get, list, cancel and watch
├── watching   follows a run's losses, once for all its watchers
└── queue      claims the next run, looks after those that run, records how attempts end
    ├── records   every run's spec and newest state, as last read
    └── leases    whose worker has fallen silent
store       the objects of a run
├── bundles    folders that appear whole or not at all: checkpoints, a trained adapter
└── metrics    the losses, in segments
"""
