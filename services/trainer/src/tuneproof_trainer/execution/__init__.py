"""Where workers run.

protocol       Executor: starts an attempt's worker or finds it, and waits for its end
├── local      processes of this machine, each in a process group of its own
└── kubernetes Jobs of a cluster
    ├── jobs      the manifest of an attempt's Job
    ├── profiles  what its pod asks of a node: h100, a100, cpu, and others of a file
    ├── states    what a Job and its pods say: what a worker waits for, how it ended
    └── cluster   the calls of the API
environment    the variables of every worker
"""
