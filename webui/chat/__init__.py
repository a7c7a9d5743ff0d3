"""What people do in a session, and the replies that follow from it.

Takes the model and storage/; knows no HTTP.
"""
