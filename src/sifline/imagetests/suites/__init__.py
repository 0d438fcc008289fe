"""Tests that sifline itself runs on images and SIFs, in addition to the image's own."""
