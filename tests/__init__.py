"""Tests, one file a module; browser/ drives the page."""
