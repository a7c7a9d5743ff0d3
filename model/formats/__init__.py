"""One module a checkpoint format: tensor names and packing -> the matrices of weights.py."""
