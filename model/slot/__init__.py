"""The place of the one model that is loaded.

model_slot.py: leases, switching, idleness; state.py what it says of itself; choice.py what may take it,
local_choice.py what of this machine may; heap.py what a loaded model is for Python's memory.
"""
