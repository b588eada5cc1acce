"""The trainer: tunes LoRA adapters by QLoRA, each in a process of its own.

    servicer, messages     the gRPC face
    runs/                  all runs of a store: create, get, list, cancel, watch, and execute
    ├── bases, defaults, spec, data, examples   what is asked, completed and checked
    └── execution/         where workers run
    plan/                  what is said before anything starts
    record, progress       the documents of a run, by which service and worker speak
    worker/                the process that trains

The service imports no torch; only `worker` does.
"""
