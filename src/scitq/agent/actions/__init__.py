"""URI actions: what is done to files after they came and before a task sees them."""
