"""What a service tells of its work: events, interceptors, digests, metrics, health."""
