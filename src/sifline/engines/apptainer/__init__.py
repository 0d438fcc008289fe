"""Apptainer: its command line, the toolbox that has it, and its words on keys and signatures."""
