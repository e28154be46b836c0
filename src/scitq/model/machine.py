"""What a machine that the server had made tells its agent, by environment variables (docs/providers.md, "What a machine is told")."""

from __future__ import annotations

ENV_MACHINE = "SCITQ_MACHINE"
"""The name that the server chose and stored before it asked the provider."""
ENV_PROVIDER = "SCITQ_PROVIDER"
ENV_REGION = "SCITQ_REGION"
ENV_FLAVOR = "SCITQ_FLAVOR"
ENV_SECONDS_LEFT = "SCITQ_SECONDS_LEFT"
"""Seconds until the allocation ends, counted when the agent is started; absent or empty when it does not end."""
