"""Sessions and bots as other programs and people have them: files that come in, files that go out.

Pure functions over documents and bytes: who calls them reads, checks and saves.
"""
