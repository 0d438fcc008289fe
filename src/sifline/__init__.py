"""From a folder of Dockerfiles to verified containers on a Slurm cluster."""

__version__ = "0.1.0"
