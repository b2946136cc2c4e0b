"""Tensors of a file into a module: what both are is known before memory is taken for either."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from .errors import UserError
from .processes import like

HEADER = 1 << 24
"""Bytes of a safetensors header at most."""

WIDEST = 1 << 20
"""No width, number of layers or other size in a model's settings is above this."""

SLACK = 1 << 24
"""Numbers a model may have besides its weights, such as the masks of a flow's nets."""

DRAWS = ("normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_")

Shapes = Mapping[str, Sequence[int]]
Part = TypeVar("Part", bound=nn.Module)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); copy it afresh") from None
    except (MemoryError, RuntimeError):  # the latter from mmap
        raise UserError(f"{path} needs more memory than there is") from None


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Raises UserError."""
    _bounded(path)
    with _readable(path):
        return load_file(path)


def shapes(path: Path) -> dict[str, list[int]]:
    """Names and shapes of a safetensors file. Raises UserError."""
    _bounded(path)
    with _readable(path), safe_open(path, "pt") as held:
        return {name: held.get_slice(name).get_shape() for name in held.keys()}  # noqa: SIM118


def _bounded(path: Path) -> None:
    """Refuse a header that takes too much to be read."""
    with _readable(path), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > HEADER:
        raise UserError(f"{path} cannot be read as safetensors (a header of {length:,} bytes)")


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter once, tied ones under their first name, and what else is to be kept."""
    kept = module.state_dict()
    held = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor for name, tensor in held if name in kept}


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Put tensors into a module. Raises UserError where they are others than it has."""
    _compare(module, {name: value.shape for name, value in tensors.items()}, where)
    with torch.no_grad():
        for name, parameter in tensors_of(module).items():
            parameter.copy_(like(tensors[name], parameter))


def shapes_of(make: Callable[[], nn.Module]) -> Shapes:
    """Of the tensors that ``make()`` has; no memory is taken for them."""
    with torch.device("meta"), _Unwritten():
        return _shapes(make())


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors_of(module).items()}


def _compare(module: nn.Module, found: Shapes, where: object) -> None:
    wanted = _shapes(module)
    both = set(wanted) & set(found)
    wrong = sorted(set(wanted) ^ set(found) | {k for k in both if wanted[k] != list(found[k])})
    if wrong:
        raise UserError(f"{where}: weights do not fit the settings, first at {wrong[0][:80]!r}")


def build(make: Callable[[], Part], settings: Mapping[str, Any], weights: Path) -> Part:
    """``make()``, which follows `settings`, with the weights of a file.

    Settings that ask for more than the file holds are found before any memory is taken for them.
    The global random state is left alone.
    Raises UserError where the two don't fit, or a weight is no finite number.
    """
    found = shapes(weights)
    _sizes(settings, _most(found), weights.parent)
    try:
        with torch.device("meta"), _Unwritten(), _no_more_than(found, weights.parent):
            _compare(make(), found, weights.parent)
        with torch.random.fork_rng(devices=[]):  # what it draws is overwritten below
            made = make()
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{weights} needs more memory than there is") from None
    except Exception as error:  # whatever a constructor says of sizes that are none
        first = str(error).partition("\n")[0][:200]
        raise UserError(f"{weights.parent}: its settings describe no model ({first})") from None
    tensors = load_tensors(weights)
    if not all(value.isfinite().all() for value in tensors.values()):
        raise UserError(f"{weights} holds weights that are no finite numbers")
    load_weights(made, tensors, weights.parent)
    return made


class _Unwritten(TorchFunctionMode):
    """Random numbers are not drawn: for tensors without memory that loads half of torch first."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _most(found: Shapes) -> int:
    return 2 * sum(map(prod, found.values())) + SLACK


def _sizes(settings: Mapping[str, Any], most: int, where: Path) -> None:
    """Refuse what would take memory or time before it has a tensor to be seen by."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            _sizes({"latent": settings.get("latent", 0), **value}, most, where)
        elif isinstance(value, int) and value > WIDEST and name != "seed":
            raise UserError(f"{where}: {name} = {value} is more than any model has")
    # zuko makes the masks of its nets, which are as large as this, on the processor at once.
    if "width" in settings and max(settings["width"], settings.get("latent", 0)) ** 2 > most:
        raise UserError(f"{where}: its settings describe a larger model than its weights")


@contextmanager
def _no_more_than(found: Shapes, where: Path) -> Iterator[None]:
    """Building stops once it has made far more tensors, or larger ones, than were found."""
    count, size = 2 * len(found) + 64, _most(found)

    def note(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal count, size
        if tensor is not None:
            count, size = count - 1, size - tensor.numel()
        if min(count, size) < 0:
            raise UserError(f"{where}: its settings describe a larger model than its weights")

    with ExitStack() as stack:
        stack.callback(hooks.register_module_parameter_registration_hook(note).remove)
        stack.callback(hooks.register_module_buffer_registration_hook(note).remove)
        yield
