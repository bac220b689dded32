"""The files of a run as dataclasses, used both to write them and to read them in the report.

Field names are the JSON keys (docs/files.md). Fields that only some runs have, or only later, have a default.
"""
