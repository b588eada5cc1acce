"""What a run would do, and whether it can: everything that is said before anything starts.

planner      the answer of PlanRun, from all of the below
├── contradictions  settings of a spec that cannot hold together
├── batches         effective batch = micro-batch x accumulation x devices, by memory
│   └── device      the device that runs train on, and its memory
├── memory          what a training takes on its device
├── packing         which examples share a row
├── checks          what stands out in the data without a tokenizer: duplicates, what is held out
├── examination     the look at the data's tokens, by a process of its own
└── rates           how fast earlier runs were
"""
