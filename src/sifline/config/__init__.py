"""Files and flags in, frozen settings out."""
