"""SQL text: parameters, classification, bulk inserts."""
