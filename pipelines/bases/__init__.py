"""Base models: pinned by digest, mirrored into the store, loaded frozen."""
