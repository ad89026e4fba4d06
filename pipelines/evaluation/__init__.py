"""Evaluation: per-example scores, what they prove, and how that is told."""
