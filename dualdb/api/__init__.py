"""What users hold: targets, clients, transactions, streams, locks."""
