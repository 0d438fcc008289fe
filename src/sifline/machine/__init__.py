"""This machine: processes, locks, records, parallel jobs, memory, disk and GPUs."""
