"""Programs that run on cluster nodes: standard-library Python, sent there over SSH."""
