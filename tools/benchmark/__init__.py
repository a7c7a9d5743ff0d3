"""Speed and memory of the engine as shares of what this machine allows; see __main__.py."""
