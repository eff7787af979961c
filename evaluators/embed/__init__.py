"""Embedders: texts to vectors, on CPU, without a network."""
