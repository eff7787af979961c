"""Taps: how responses reach the evaluator. They only gather bytes; nothing is parsed on the serving path."""
