"""The shard map: read, parsed, put into use, reported."""
