"""The typed messages, one module per group; importing this package registers them all."""

from scitq.protocol.messages import agent, file, fleet, server, session, task, worker

__all__ = ["agent", "file", "fleet", "server", "session", "task", "worker"]
