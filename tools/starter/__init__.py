"""What the starter model is made of: its corpus, its network and its training. For tools.train_starter."""
