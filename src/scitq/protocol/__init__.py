"""What goes over the wire: envelope, registry of messages, codec, tokens."""
