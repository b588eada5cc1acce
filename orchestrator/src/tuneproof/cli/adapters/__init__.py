"""`tuneproof adapters …`: commands that call a generator, or handle adapters without one.

commands   list, show, declare, remove, watch, verify
stored     list and show of an artifact store; gc
moving     push, pull: artifact stores, OCI registries, folders
pairs      diff
merging    merge, by the trainer's package
aliases    alias, aliases, history, rollback, retire
tables     adapters and aliases on the terminal and as JSON
watch      following adapters while replicas come and go
verify     checking an adapter's folder without a generator
"""
