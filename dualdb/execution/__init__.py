"""Plans: what to do, in which order, and what to do when it fails."""
