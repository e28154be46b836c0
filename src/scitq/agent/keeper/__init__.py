"""The keeper: a small process beside the agent that starts bare tasks, holds their pipes, and outlives a killed agent."""
