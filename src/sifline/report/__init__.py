"""The output: progress while steps run, tables at the end, JSON for scripts."""
