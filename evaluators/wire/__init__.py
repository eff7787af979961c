"""Wire formats: what a tap gathered, as samples."""
