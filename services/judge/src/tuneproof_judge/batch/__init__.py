"""The endpoint's batch API (OpenAI's `/files` and `/batches`): half the price, within a day.

asking      what has not come yet is put into the queue, and its grade is asked for again later
   │
queue       requests and batches, in the cache's file, so that a killed judge goes on
   │
running     queued requests become batches; what comes of a batch becomes completions
"""
