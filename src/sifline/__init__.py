"""From a folder of Dockerfiles to verified containers on a Slurm cluster."""
