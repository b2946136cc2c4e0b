"""torch.compile, where it works."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..parts.lstm import hide_from_compiler


def compile_in_place(module: nn.Module, tell: Callable[[str], None]) -> None:
    """From now on `module` runs through torch.compile, or as it is if it cannot be compiled.

    Compilation needs a C++ compiler (on a GPU: Triton), which shows only when the module is called.
    tell: given one line if that happens. A mistake of the module's own is raised as ever, by the
    module itself. Shapes are symbolic, since every batch has another.
    """
    hide_from_compiler()
    plain = module.forward
    quick: Any = torch.compile(plain, dynamic=True)

    def forward(*arguments: Any) -> Any:
        try:
            return quick(*arguments)
        except Exception as error:
            found = plain(*arguments)
            module.forward = plain
            tell(f"training.compile: not compiled ({_first_line(error)}); going on without")
            return found

    module.forward = forward


def _first_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:160]}" if said else type(error).__name__
