"""How well corpora of one's own are searched.

topics        questions with their evidence
measuring     one search configuration: success, recall, reciprocal rank, nDCG by question
comparing     several of them: means and paired differences with intervals

What corpora are made of is read by `data.reading`.
"""
