"""The Docker engine: its command line and API, images, containers, what a build may use."""
