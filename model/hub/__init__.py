"""Getting models from a model hub, and only when somebody asks for one: nothing else here uses the network.

source.py reads what was asked for, choice.py picks the file that suits this machine, client.py talks to the
hub, downloads.py does it beside the requests and tells how far it is.
"""
