"""One run's worker, a process of its own: `python -m tuneproof_trainer.worker STORE RUN ATTEMPT`.

__main__    the program and its exit codes; imports no torch
work        reads the run, has it trained, commits the adapter
processes   the other processes of a training that several devices share
output      what is printed, and the file that keeps it
telling     heartbeat, losses, log; whether the run is still this worker's
stopping    how a worker is told to stop
checkpoints what is saved in the background, and what the worker goes on from
pipeline    tokens -> base -> training -> provenance, fingerprint, card, in this order
├── tokens      conversations as token ids, as serving makes them
├── base_model  the frozen base, quantised or not
├── training    TRL's SFTTrainer over a peft model
│   ├── sharing     the rows of each process, and what the processes agree on
│   ├── resuming    saves within transformers' Trainer
│   ├── reporting   TensorBoard and MLflow, where the trainer names them
│   ├── packing     rows of one example, or of several that must not see one another
│   └── validation  the loss over other examples, the early end, the best adapter
├── provenance  what made the adapter
├── fingerprint what the adapter does to its base, by a few fixed questions
└── card        the model card, for people

examine     a program of its own for PlanRun: what the data is as tokens
"""
