"""Programs that run on cluster nodes: standard-library Python, sent over SSH, nothing installed."""
