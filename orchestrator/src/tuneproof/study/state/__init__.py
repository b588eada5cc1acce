"""A study's memory.

store      one SQLite file of finished work, each piece under the digest of its inputs
codec      values from the JSON that it keeps
lock       one study at a time in a state folder
snapshots  gives copies of it to other machines
"""
