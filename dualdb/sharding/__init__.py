"""Several shards as one: scatter, merge, aggregates."""
