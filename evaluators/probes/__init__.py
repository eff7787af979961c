"""What asks the replica itself: canaries, forward progress and other probes, in a process of their own."""
