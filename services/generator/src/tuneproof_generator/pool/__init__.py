"""The pool: the replicas that serve one base model, and what they agree on in its folder.

declarations      declared state: the adapters that every replica serves
aliases, routes   names that point to adapters, and which adapter answers a request
replicas, fleet   observed state: who is alive, and what each replica serves
adapter_pool      brings declared and observed state together on this replica
store             the pool's folder in the artifact store
"""
