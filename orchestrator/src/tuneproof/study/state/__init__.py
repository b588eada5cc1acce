"""A study's memory.

store   one SQLite file of finished work, each piece under the digest of its inputs
codec   values to the JSON that it keeps, and back
lock    one study at a time in a state folder
"""
