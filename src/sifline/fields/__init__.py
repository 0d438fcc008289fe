"""Declares the keys of settings files, each once, on the dataclass field that gets its value.

A field of a frozen dataclass is a key if its annotation contains one:

    cpus: Annotated[int, Key(kind=Whole(least=1, most=64), help="Its cores.", example=8)] = 1

The value, the check with its message, the JSON Schema and the row of the reference all come
from it. Annotations are evaluated when the first file is read: modules that declare fields
import these names under ``TYPE_CHECKING``, so no start of a command gets slower.
"""
