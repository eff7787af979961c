"""Redaction, before anything is stored, logged or exported."""
