"""The content of an image or a SIF: packages, bills of materials, sizes, host requirements."""
