"""The web app without a browser: HTTP, what is kept on disk, what a session is."""
