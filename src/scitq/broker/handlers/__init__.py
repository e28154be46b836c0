"""What the broker does with each kind of message."""
