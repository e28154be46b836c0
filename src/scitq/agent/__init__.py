"""The worker: takes tasks, brings their data, runs them, sends their results."""
