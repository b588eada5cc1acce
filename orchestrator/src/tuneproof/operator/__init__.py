"""The operator of the kind `Adapter`: adapters by kubectl, for a cluster that has the kind.

app          runs it on kopf: which objects there are, and when they change
following    follows one pool: looks, acts, tells
acting       what it asks of a pool when an object changes
conditions   what it tells of an object, from what the pool says
objects      an object as the cluster has it
cluster      the calls of the cluster's API

The pool's folder stays the truth. The operator acts when an object changes, once for each change;
otherwise it only looks, and tells what it sees.
"""

from tuneproof.operator.app import OperatorSettings, run_operator

__all__ = ["OperatorSettings", "run_operator"]
