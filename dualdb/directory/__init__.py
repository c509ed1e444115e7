"""Keys to shards: lookup tables, hash buckets, placement of new keys, and ids."""
