"""The trainer: tunes LoRA adapters by QLoRA, each in a process of its own.

What is imported here and by the service knows no torch; only `worker` and what it imports do.
"""
