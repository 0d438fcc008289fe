"""Dockerfiles: their words, their instructions, and the stages and images that they name."""
