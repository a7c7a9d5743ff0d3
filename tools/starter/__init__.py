"""What the starter model is made of: its corpus, its network and its training. Used by tools.train_starter only."""
