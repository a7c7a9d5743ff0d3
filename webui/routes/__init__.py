"""The HTTP interface: one blueprint a module. A route checks the request, calls one thing, answers."""
