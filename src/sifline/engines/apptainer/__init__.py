"""Apptainer: its command line, the toolbox that provides it, its keys and signatures."""
