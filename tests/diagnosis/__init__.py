"""Labelled jobs for the diagnosis of failures, and what scores it on them.

``cases/`` was written before the rules, and a third of it is sealed; ``fresh/`` came after them
and was scored as it was before a rule was changed for it; ``messages.txt`` has messages that
decide alone, each with its class.
"""
