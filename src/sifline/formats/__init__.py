"""Formats of others, read and written without their tools."""
