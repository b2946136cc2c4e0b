"""midsentence: a latent space of sentences.

from midsentence import TextVAE, train
vae = train("poems.txt", "runs/poems")
vae.sample(5)
"""

from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from .bundle import Score, TextVAE
    from .generate import Decoding
    from .pipeline import train
    from .vae import VAE, Pass

__version__ = "0.1.0"
__all__ = ["VAE", "Decoding", "Pass", "Score", "TextVAE", "UserError", "__version__", "train"]

# The rest needs torch, which takes seconds to load: `midsentence --help` should not wait for it.
_HOME = {
    "TextVAE": "bundle", "Score": "bundle", "Decoding": "generate", "train": "pipeline",
    "VAE": "vae", "Pass": "vae",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'midsentence' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
