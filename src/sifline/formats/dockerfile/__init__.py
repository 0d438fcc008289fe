"""Dockerfiles: their words, their instructions, their stages, and the images that they name."""
