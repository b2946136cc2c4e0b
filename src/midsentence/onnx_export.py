"""The networks of a model as ONNX graphs, for runtimes without PyTorch.

Three graphs: `encoder` reads sentences, `start` makes a decoder's state of z, and `step` goes one
word on. They hold the model's own modules, traced. Only the recurrent nets are said again: the
exporter would unroll them to the length of one example, so ONNX's own operators stand for them.
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim

from .errors import UserError
from .latent import unit
from .text.batches import Batch
from .text.tokenizer import BOS, EOS
from .vae import VAE
from .writing import whole_folder

FOLDER = "onnx"
FILES = ENCODER, START, STEP = "encoder.onnx", "start.onnx", "step.onnx"
SENTENCES, WORDS, STEPS = (Dim(name) for name in ("sentences", "words", "steps"))


class Encoder(nn.Module):
    """Words and ``</s>``, padded with 0 -> the posterior's mean and standard deviation.

    A flow or a von Mises-Fisher posterior has no standard deviation: its mean alone, on the sphere
    its direction, which is what `TextVAE.encode` gives.
    """

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def forward(
        self, tokens: Int[Tensor, "B T"], label: Int[Tensor, "B"] | None = None
    ) -> tuple[Tensor, ...]:
        h = self.vae.encoder(Batch(nn.functional.pad(tokens, (1, 0), value=BOS)))
        q = self.vae.posterior(self.vae.joined(h, label))
        mean = unit(q.mean) if self.vae.sphere else q.mean
        return (mean, q.stddev) if spreads(q) else (mean,)


def spreads(q: Any) -> bool:
    """Is it known how far q spreads in each dimension?"""
    try:
        return q.stddev.shape == q.mean.shape
    except NotImplementedError:
        return False


class Start(nn.Module):
    """z -> the decoder's state before ``<s>``, tensor by tensor."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def forward(
        self, z: Float[Tensor, "N D"], label: Int[Tensor, "N"] | None = None
    ) -> tuple[Tensor, ...]:
        # A copy, for nothing may be input and output at once.
        state = self.vae.decoder.start(self.vae.joined(z, label))
        return tuple(value.clone() for value in state.values())


class Step(nn.Module):
    """The word before and the state -> log p of every next word, and the state after it."""

    def __init__(self, vae: VAE, names: Sequence[str]):
        super().__init__()
        self.vae, self.names = vae, names

    def forward(self, word: Int[Tensor, "N"], *state: Tensor) -> tuple[Tensor, ...]:
        held = dict(zip(self.names, state, strict=True))
        hidden, after = self.vae.decoder.step(word[:, None], held)
        log_p = self.vae.head.logits(hidden[:, -1]).log_softmax(-1)
        return log_p, *(after[name].clone() for name in self.names)


class _Recurrent:
    """What `nn.LSTM` and `nn.GRU` compute, by ONNX's operators of these names."""

    order: tuple[int, ...]  # of PyTorch's gates in ONNX

    def ready(self: Any) -> None:
        """Put the weights into ONNX's order; the tensors outlive the gates they were made of."""
        for layer in range(self.num_layers):
            ordered = [
                torch.cat([value.detach().chunk(len(self.order))[i] for i in self.order])[None]
                for value in (
                    getattr(self, f"{name}_l{layer}")
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                )
            ]
            self.register_buffer(f"wide_{layer}", ordered[0])
            self.register_buffer(f"deep_{layer}", ordered[1])
            self.register_buffer(f"bias_{layer}", torch.cat(ordered[2:], 1))

    def forward(self: Any, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        lstm = isinstance(self, nn.LSTM)
        carried = () if state is None else state if lstm else (state,)
        count = 2 if lstm else 1
        x, ends = x.transpose(0, 1), []
        for layer in range(self.num_layers):
            begin = [each[layer : layer + 1] for each in carried]
            length, rows, size = *x.shape[:2], self.hidden_size
            every, *last = torch.onnx.ops.symbolic_multi_out(
                "LSTM" if lstm else "GRU",
                (
                    x,
                    *(getattr(self, f"{name}_{layer}") for name in ("wide", "deep", "bias")),
                    None,
                    *begin,
                ),
                {"hidden_size": size} | ({} if lstm else {"linear_before_reset": 1}),
                dtypes=[x.dtype] * (1 + count),
                shapes=[(length, 1, rows, size)] + [(1, rows, size)] * count,
            )
            x = every.squeeze(1)
            ends.append(last)
        after = tuple(torch.cat(each) for each in zip(*ends, strict=True))
        return x.transpose(0, 1), after if lstm else after[0]


class _LSTM(_Recurrent, nn.LSTM):  # type: ignore[misc]
    order = 0, 3, 1, 2


class _GRU(_Recurrent, nn.GRU):  # type: ignore[misc]
    order = 1, 0, 2


def exportable(vae: VAE) -> VAE:
    """A copy whose every operator has an ONNX form, and whose products are fp32."""
    found = copy.deepcopy(vae).eval()
    found.head.precision = "float32"
    for module in list(found.modules()):
        same = {nn.LSTM: _LSTM, nn.GRU: _GRU}.get(type(module))
        if same is not None:
            module.__class__ = same
            _Recurrent.ready(module)
    return found


def check(vae: VAE) -> None:
    """Raises UserError where there is no writing the model, or the extra is missing."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError('--onnx needs: pip install "midsentence[onnx]"') from None
    if not vae.latent:
        raise UserError("a language model (latent = 0) has no z to decode: leave --onnx out")
    if vae.refinement is not None:
        raise UserError(
            "refine.steps: an encoder that follows gradients is no ONNX graph: leave --onnx out"
        )


def write(folder: Path, vae: VAE) -> Path:
    """Write ``folder/onnx``, whole or not at all. Raises UserError.

    N, B and T are free, the state's length too.

    - ``encoder``: tokens (B, T) [, label (B,)] -> mean (B, D) [, scale (B, D)].
    - ``start``: z (N, D) [, label (N,)] -> the state.
    - ``step``: word (N,), the state -> log_p (N, V) nats, the state after.
    """
    check(vae)
    with whole_folder(folder / FOLDER, FILES) as made:
        write_encoder(made / ENCODER, vae)
        write_decoder(made / START, made / STEP, vae)
    return folder / FOLDER


def write_encoder(path: Path, vae: VAE) -> None:
    tokens = torch.tensor([[4, 3, 3, EOS], [3, EOS, 0, 0], [3, 4, EOS, 0]])
    label = _label(vae)
    with torch.no_grad():  # the real one: of nets that stand for others there are no numbers
        found = Encoder(vae)(tokens, *label.values())
    _graph(
        path,
        Encoder(exportable(vae)),
        {"tokens": tokens, **label},
        ({0: SENTENCES, 1: WORDS}, *[{0: SENTENCES}] * len(label)),
        ("mean", "scale")[: len(found)],
    )


def write_decoder(start: Path, step: Path, vae: VAE) -> None:
    model, label = exportable(vae), _label(vae)
    z = torch.linspace(-1, 1, 3 * vae.latent).view(3, vae.latent)
    word = torch.full((3,), BOS)
    with torch.no_grad():
        state = vae.decoder.start(vae.joined(z, *label.values() or (None,)))
        for _ in range(3):
            _, state = vae.decoder.step(word[:, None], state)
    inside, outside = ([f"{way}_{name}" for name in state] for way in ("state", "next"))
    _graph(start, Start(model), {"z": z, **label}, [{0: SENTENCES}] * (1 + len(label)), inside)
    # What grows while words are written is the cache of a decoder that looks back.
    grows = tuple({0: SENTENCES} | ({2: STEPS} if name == "past" else {}) for name in state)
    _graph(
        step,
        Step(model, list(state)),
        {"word": word, **dict(zip(inside, state.values(), strict=True))},
        ({0: SENTENCES}, grows),
        ["log_p", *outside],
    )


def _label(vae: VAE) -> dict[str, Tensor]:
    """One more input of a model that knows labels: their numbers, -1 for none."""
    return {} if vae.labels is None else {"label": torch.tensor([0, -1, 0])}


def _graph(
    path: Path, module: nn.Module, inputs: dict[str, Tensor], shapes: Any, outputs: Sequence[str]
) -> None:
    try:
        with quiet(), torch.no_grad():
            traced = torch.export.export(
                module, tuple(inputs.values()), dynamic_shapes=tuple(shapes), strict=False
            )
            # Distributions prepare more than is asked of them, such as a Cholesky factor.
            traced.graph.eliminate_dead_code()
            program = torch.onnx.export(
                traced, input_names=list(inputs), output_names=outputs, verbose=False
            )
            assert program is not None
            # Each node remembers the line it comes from, with where that lies on this machine.
            model: Any = program.model
            for part in (model, model.graph, *model.graph.all_nodes()):
                part.metadata_props.clear()
            program.save(path)
    except OSError:
        raise
    except Exception as error:  # whatever an exporter of many layers says
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        first = str(cause).strip().partition("\n")[0][:200]
        raise UserError(
            f"{path.name}: a part of this model cannot be an ONNX graph ({first}): leave --onnx out"
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Nobody who exports a model can do anything about what the exporter remarks."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
