"""Quality checks, one a file."""
