"""Tests that sifline runs of its own on images and SIFs, beside those of the images."""
