"""The side of the protocol that commands use."""
