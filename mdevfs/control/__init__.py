"""Talking to a running host: its events, and later scripted change."""
