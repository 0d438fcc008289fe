"""What is deployed to a cluster: the catalog, rolling back, removing."""
