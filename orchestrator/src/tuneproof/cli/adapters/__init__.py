"""`tuneproof adapters …`: commands that call a generator, or examine an adapter's folder.

commands   list, show, declare, remove, watch, verify
aliases    alias, aliases, history, rollback, retire
tables     adapters and aliases on the terminal and as JSON
watch      following adapters while replicas come and go
verify     checking an adapter's folder without a generator
"""
