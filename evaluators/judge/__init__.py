"""A model that scores responses: only while an alarm is up, or within a small budget."""
