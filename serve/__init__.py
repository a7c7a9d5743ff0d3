"""Replicas of the engine behind one address, by Ray Serve. No page and no session: /v1 alone."""
