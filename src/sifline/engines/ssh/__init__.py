"""The nodes of a cluster over the system's OpenSSH and rsync."""
