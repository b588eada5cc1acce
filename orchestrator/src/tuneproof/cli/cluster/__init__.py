"""Commands on a cluster, and the flags that send every other command there."""
