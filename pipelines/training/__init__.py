"""Tuning on a frozen base: job files in, folders of weights out."""
