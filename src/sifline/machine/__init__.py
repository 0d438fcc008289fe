"""This machine: its processes and locks, files that survive a kill, jobs side by side."""
