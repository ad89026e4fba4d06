"""The content-addressed store: one protocol, a folder or an S3 bucket behind it."""
