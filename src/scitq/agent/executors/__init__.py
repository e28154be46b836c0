"""Ways to run a command: docker, podman, apptainer, bare."""
