"""What runs inside a serving process: allocator probe and ASGI tap. Standard library only, nothing else of ours."""
