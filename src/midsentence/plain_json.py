"""JSON that every reader takes: what isn't a number is null, where Python would write NaN."""

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(content: Any, **options: Any) -> str:
    """`json.dumps`, with nan and the infinities as null."""
    return json.dumps(_plain(content), allow_nan=False, **options)


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
