"""Studies that run in the cluster: a Job each, with its state on a volume of its own.

Submissions     makes, finds, lists and cancels them
|- bundle       the study file and the files that it names, packed for a ConfigMap
|- manifests    the Job, its volume and its Secret
|- progress     how a Job is, and what it says
`- fetching     its state, brought to this machine; study.state.snapshots gives it, in the pod
"""

from tuneproof.cluster.submission.bundle import Bundle, pack
from tuneproof.cluster.submission.fetching import fetch
from tuneproof.cluster.submission.progress import Progress
from tuneproof.cluster.submission.submissions import Asked, Submission, Submissions

__all__ = ["Asked", "Bundle", "Progress", "Submission", "Submissions", "fetch", "pack"]
