"""Which models there are on this machine, and what each would take here.

places.py finds them by their names alone, headers.py reads what one holds, advice.py what its authors say of
sampling, listing.py keeps both beside the requests that ask. Nothing is loaded, nothing is written.
"""
