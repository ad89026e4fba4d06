"""What a request may be: bounds that keep one caller from being everybody's problem."""

from __future__ import annotations

BODY_BYTES = 1024 * 1024  # of a request's body; beyond it: 413
DISCARDED_BYTES = 16 * BODY_BYTES  # of a body that is too large, read and dropped so that its sender hears the answer
TEXT_CHARS = 20_000  # of one text; the prompt's template cuts it to `max_tokens` after that, as it did in training
REQUEST_ROWS = 64  # texts in one request; they are answered in one batch, all of one prompt by one version
BATCH_ROWS = 64  # rows in one batch of the engine, requests of all prompts together
WAITING_ROWS = 512  # rows that may wait for their batch; beyond them: 429
NEW_TOKENS = 1024  # that one text may be written on by
ON_DEMAND = 4  # versions that clients may have served beside what the server was started with
STREAMS = 8  # texts written on at once; beyond them: 429
