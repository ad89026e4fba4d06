"""Answering with soft prompts."""
