"""All that promptmint says to MLflow, and the only package that imports it."""
