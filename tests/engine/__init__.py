"""Requests, memory and devices: the model from tokens to tokens."""
