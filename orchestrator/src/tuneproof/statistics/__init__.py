"""What the scores of a study allow one to say, and how surely."""

from tuneproof.statistics.agreement import confusion_matrix, weighted_kappa

__all__ = ["confusion_matrix", "weighted_kappa"]
