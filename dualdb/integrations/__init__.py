"""What connects this package to others. Nothing here is imported by itself."""
