"""One module per engine: our words in, its command line or API out."""
