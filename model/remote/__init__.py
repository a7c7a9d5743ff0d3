"""Models behind other engines that speak OpenAI's protocol, as if they were loaded here.

address.py: where an engine is; connection.py talks to it by the openai library, which is imported when one
is first spoken to; abilities.py asks what it can; remote_model.py is the model; engines.py all of them.
Connects nowhere but to the engines that somebody has named. No Flask, no disk.
"""
