"""Promotion: who is champion, decided once at a time and written down for good."""
