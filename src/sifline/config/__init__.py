"""Reads settings files, cluster files and flags into frozen settings."""
