"""The frozen types and pure rules of the domain: tasks, states, workers, URIs."""
