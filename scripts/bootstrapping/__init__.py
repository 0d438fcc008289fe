"""What scripts/bootstrap is made of; only the standard library, as nothing is installed yet."""
