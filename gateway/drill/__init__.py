"""Recordings through the real path: replay on a desk, simulators on pseudo-terminals, drills."""
