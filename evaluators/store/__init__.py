"""Where samples and their scores are kept."""
