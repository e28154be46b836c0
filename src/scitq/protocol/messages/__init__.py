"""The typed messages, one module per group; importing a module registers its own, and a quick command imports no other."""
