"""Runs commands on the nodes of a cluster with the system's OpenSSH and rsync."""
