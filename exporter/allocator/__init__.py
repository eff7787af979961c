"""Allocator statistics that serving processes leave in files: who wrote them, what they say, what it means."""
