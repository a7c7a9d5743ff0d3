"""Tools: how they are shown to a model, how its calls are read as it writes them, and held to their
schemas."""
