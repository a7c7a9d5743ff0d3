"""The protocols of other programs, one file each.

Each puts what is asked into an Ask, has it answered by answering.py, and writes the answer in its own words.
Knows messages and text; no token and no tensor.
"""
