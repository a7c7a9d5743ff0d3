"""What stands between the network and the routes: who may come in, how many streams, the page's files.

Knows nothing of sessions, of the model, or of what the routes answer.
"""
