"""`midsentence ...`: options in, one call of the library, its answer shown."""

import sys

try:
    from .app import app, main
except KeyboardInterrupt:  # Ctrl-C while it loads, before anything of ours could listen
    print("midsentence: interrupted", file=sys.stderr)
    sys.exit(130)

__all__ = ["app", "main"]
