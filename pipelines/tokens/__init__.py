"""From checked examples to token shards: the template and the encoder."""
