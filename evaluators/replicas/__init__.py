"""What replicas of one model are compared by, without a baseline: a fixed projection and counters of it."""
