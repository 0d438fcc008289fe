"""What a key of a settings file takes, declared once, on the field that gets its value.

A field of a frozen dataclass is a key where its annotation has one:

    cpus: Annotated[int, Key(kind=Whole(least=1, most=64), help="Its cores.", example=8)] = 1

From that come the value, the check with its message, the JSON Schema and the row of the
reference. Annotations are evaluated when the first file is read: a module that declares fields
needs these names for its readers alone, under ``TYPE_CHECKING``, and no start pays for them.
"""
