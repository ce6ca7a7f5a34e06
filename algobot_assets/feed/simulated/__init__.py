"""A simulated exchange and archive on loopback, with seeded prices and faults."""
