"""The `pyoffload` command.

`cli` is a bare top-level name: right for an application in an environment of its own, wrong for a library.
"""
