"""Work that is all or nothing, once, or in order, across transactions and databases."""
