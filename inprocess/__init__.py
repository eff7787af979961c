"""What runs inside a serving process: the allocator probe. Standard library only; imports nothing else of Palegreen."""
