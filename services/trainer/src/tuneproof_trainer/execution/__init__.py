"""Where workers run.

protocol   Executor: starts an attempt's worker or finds it, and waits for its end
└── local  processes of this machine, each in a process group of its own
"""
