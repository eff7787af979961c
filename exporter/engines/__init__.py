"""Inference engines: fetch, parse, recognise, map by data, fold ranks."""
