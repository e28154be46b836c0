"""scitq.yaml: its typed schema and how it is found and read."""
