"""Small things that every floor may use; nothing here knows of tasks or workers."""
