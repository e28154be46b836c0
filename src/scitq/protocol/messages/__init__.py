"""The typed messages, one module per group; importing this package registers them all."""
