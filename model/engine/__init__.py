"""The engine: one thread that owns the model, the cache and the scheduler. Tokens in, events out."""
