"""Labelled jobs for the diagnosis of failures, and what scores it on them."""
