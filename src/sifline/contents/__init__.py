"""What an image or a SIF holds: packages, bills of materials, sizes, what it needs of a host."""
