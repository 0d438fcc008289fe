"""The Docker engine: its command line and API, its images, containers and builds."""
