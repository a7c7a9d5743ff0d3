"""Tokenizers, templates and what is done with text on its way in and out."""
