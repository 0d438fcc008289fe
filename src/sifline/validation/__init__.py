"""Health checks of clusters."""
