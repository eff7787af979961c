"""What is named once: metrics and engine mappings, as data, with small loaders."""
