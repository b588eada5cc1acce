"""The life of one adapter on this replica, from its declaration to its removal.

lifecycle         the states and the steps between them: PENDING … READY … DRAINING, FAILED
loading           fetch, verify, load, warm; `admission` checks the files, `effects` what the engine
                  answers with them
local_adapter     one adapter: its record and its tasks
local_adapters    all adapters of this replica, each moved on by a task of its own
capacity          how many fit into host memory, and which one may be evicted
traffic           requests under way, and the drain
"""
