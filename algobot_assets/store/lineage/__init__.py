"""Record what every partition was computed from, and digest rows and states."""
