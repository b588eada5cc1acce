"""The pool: the replicas that serve one base model, and what they agree on in its folder.

declarations, aliases   declared state, as objects in the pool's folder (`store`)
replicas, fleet         observed state: heartbeats, leases, and what every replica serves
reconciler              makes this replica's adapters equal to the declared state
routes, resolver        how an alias is set, and which adapter serves a request
adapter_pool            declares and removes; puts the parts together
views, changes          what callers and watchers see
residency_metrics       what routers see: which adapters the engine's workers hold
"""
