"""The service and the explorer: what the command line and Python do, over HTTP.

Imported by nobody but the command line; needs the extra ``web``.
"""
