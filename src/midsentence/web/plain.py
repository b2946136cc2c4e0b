"""JSON for browsers: what is no number is null, and no sentence can end a script or open a tag."""

from typing import Any

from fastapi.responses import JSONResponse

from ..plain_json import dumps

ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""Inside JSON these stand in strings only, so writing them as escapes changes nothing."""


def encoded(content: Any) -> bytes:
    """JSON in UTF-8; half of a surrogate pair, which UTF-8 can't hold, is its escape."""
    text = dumps(content, ensure_ascii=False, separators=(",", ":")).translate(ESCAPED)
    return text.encode("utf-8", "backslashreplace")


class PlainJSON(JSONResponse):
    def render(self, content: Any) -> bytes:
        return encoded(content)
