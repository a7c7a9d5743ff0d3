"""Tests by layer; browser/ drives the page, helpers/ is what they share."""
