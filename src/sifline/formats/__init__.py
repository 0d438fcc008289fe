"""File formats of other projects, read and written without their tools."""
