"""The services of a Kubernetes cluster, reached and examined from outside, by kubeconfig.

Reach           addresses for the clients of this machine
|- services     what is there, by pool
|- forwarding   ports that lead to Ready pods; gateway: the host names of routes
|- contracts    whether a service is older than this client
`- access       tokens and certificates in Secrets
troubles        why a pod is not Ready
api, pods       the API's calls, and what a pod's object tells
"""

from tuneproof.cluster.api import Cluster, contexts
from tuneproof.cluster.reach import Reach, Via

__all__ = ["Cluster", "Reach", "Via", "contexts"]
