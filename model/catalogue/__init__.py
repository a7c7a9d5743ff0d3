"""Which models there are on this machine, and what each would take here.

places.py finds them by their names alone, headers.py reads what one holds, listing.py keeps that beside the
requests that ask. Nothing is loaded, nothing is written.
"""
