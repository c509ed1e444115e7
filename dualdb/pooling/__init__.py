"""The bookkeeping of pools and circuit breakers. No I/O."""
