"""English words that keyword search leaves out."""

from __future__ import annotations

_ENGLISH = """
    a about after again against ain all am an and are aren as at be been below between both but by
    can couldn d did didn do doesn don down each few for from further had hadn has hasn have haven
    he her here herself him himself his how i if in into is isn it itself just ll m ma me mightn
    more most mustn my myself needn no nor not now o of off on or other our out over own re s same
    shan she should shouldn so some such t than that the their them then there these they this
    those through to too under until up ve was wasn we were weren what when where which while who
    whom will with won wouldn y you your yourself
    """
STOP_WORDS = frozenset(_ENGLISH.split())
"""Those of LanceDB 0.40, which it compares with stems: so they are stems too."""
