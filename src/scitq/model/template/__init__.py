"""Workflow files: YAML with line numbers, checked wholly, worked out into a plan (docs/workflows.md). No network, no files."""
