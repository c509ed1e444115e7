"""Plans: the order of the steps of each operation, and their error handling."""
