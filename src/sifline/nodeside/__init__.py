"""Programs that are sent to cluster nodes over SSH and run there: only the standard library."""
