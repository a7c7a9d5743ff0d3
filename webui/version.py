"""Parlor's version, for the page and for exports."""

VERSION = "0.1.0"
