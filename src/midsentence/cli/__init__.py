"""`midsentence ...`: options in, one call of the library, its answer shown."""

from .app import app, main

__all__ = ["app", "main"]
