"""Attacks on a judge, and how many of them earn a wrong answer a better score.

attacks   the literature's attacks, each as what it makes of a wrong answer
items     questions with a right and a wrong answer, built in or from a file
running   has a judge grade them
"""

from tuneproof.redteam.attacks import ATTACKS, Attack
from tuneproof.redteam.items import BUILT_IN, Item, read_items
from tuneproof.redteam.running import Found, Outcome, attack_judge

__all__ = [
    "ATTACKS",
    "BUILT_IN",
    "Attack",
    "Found",
    "Item",
    "Outcome",
    "attack_judge",
    "read_items",
]
