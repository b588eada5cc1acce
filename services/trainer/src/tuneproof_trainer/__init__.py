"""The trainer: tunes LoRA adapters by QLoRA, each in a process of its own.

    servicer, messages   the gRPC face
    runbook              all runs: create, get, list, cancel, watch
    ├── defaults, spec, data   what is asked, completed and checked
    └── queue -> executor      which run is next, and its worker process
    record, progress     the files of a run, by which service and worker speak
    worker/              the process that trains

The service imports no torch; only `worker` does.
"""
