"""The shard map: reading, parsing, activation, and reports."""
