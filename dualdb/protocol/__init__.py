"""What goes over a connection, and what is known of its session. No I/O."""
