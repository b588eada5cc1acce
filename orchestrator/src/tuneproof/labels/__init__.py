"""Asking people: which pairs of answers, on which page, and what came back.

sampling   draws pairs by chance, some of them twice
page       one file that a rater opens: blinded, offline, resumable
reading    checks what a rater's page gave, and turns it into ratings of the study
"""

from tuneproof.labels.page import build_page
from tuneproof.labels.reading import added, ratings_of
from tuneproof.labels.sampling import Sample, draw

__all__ = ["Sample", "added", "build_page", "draw", "ratings_of"]
