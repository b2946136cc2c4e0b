"""The vocabulary head beside other ways to its figure: python benchmarks/heads.py [--positions ..]

Every form gives the summed log-probability of the targets and the gradients of hidden states,
table and bias (with few gradient words, an estimate of them; with few sampled words, one of both).
The forms take turns; a row is the median of the rounds, with its ratio to plain fp32. In bf16 only
where the processor multiplies it.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from midsentence.parts.head import Head, has_fast_bfloat16
from midsentence.parts.log_softmax import FIRST


def few(head: Head, setting: str) -> Head:
    """A view of the head that has 1,024 words for its gradient, or for all."""
    other = copy.copy(head)
    setattr(other, setting, 1024)
    return other


def forms(head: Head, compile: bool) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    table, bias = head.table, head.bias
    narrow = copy.copy(head)  # of the same parameters
    narrow.precision = "float32"

    def eager(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = functional.linear(hidden, table[FIRST:], bias)
        return functional.cross_entropy(logits, targets - FIRST, reduction="sum")

    def eager_bf16(hidden: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, torch.bfloat16):
            logits = functional.linear(hidden, table[FIRST:], bias)
        return functional.cross_entropy(logits.float(), targets - FIRST, reduction="sum")

    def chunked(hidden: Tensor, targets: Tensor, kind: torch.dtype = torch.float32) -> Tensor:
        return functional.linear_cross_entropy(
            hidden.to(kind), table[FIRST:].to(kind), targets - FIRST,
            linear_bias=bias.to(kind), reduction="sum",
            options=nn.LinearCrossEntropyOptions(),
        ).float()  # fmt: skip

    found = {
        "plain, fp32": eager,
        "plain, bf16 products": eager_bf16,
        "F.linear_cross_entropy, fp32": chunked,
        "F.linear_cross_entropy, bf16": lambda h, t: chunked(h, t, torch.bfloat16),
        "ours, fp32": lambda h, t: -narrow.log_prob(h, t).sum(),
        "ours, bf16 products": lambda h, t: -head.log_prob(h, t).sum(),
    }
    for setting in ("gradient_words", "sampled_words"):
        for kind, one in (("fp32", few(narrow, setting)), ("bf16", few(head, setting))):
            name = f"ours, {kind}, 1,024 {setting.replace('_', ' ')}"
            found[name] = lambda h, t, one=one: -one.log_prob(h, t).sum()
    if compile:
        found["torch.compile of plain, fp32"] = torch.compile(eager)
        found["torch.compile of plain, bf16"] = torch.compile(eager_bf16)
    fast = has_fast_bfloat16(table.device)  # made of fp32 ones, bf16 products take for ages
    return {name: form for name, form in found.items() if fast or "bf16" not in name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=768)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=10_002)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    asked = parser.parse_args()
    torch.manual_seed(0)
    head = Head(asked.hidden, nn.Embedding(asked.vocab, asked.hidden), sampled_words=0)
    hidden = (torch.randn(asked.positions, asked.hidden) * 0.5).requires_grad_()
    targets = torch.randint(FIRST, asked.vocab, (asked.positions,))
    wanted = [hidden, head.table, head.bias]
    took: dict[str, list[float]] = {}
    values = {}
    every = forms(head, asked.compile)
    for turn in range(asked.rounds + 2):
        for name, form in every.items():
            began = time.perf_counter()
            value = form(hidden, targets)
            torch.autograd.grad(value, wanted)
            if turn > 1:
                took.setdefault(name, []).append(time.perf_counter() - began)
            values[name] = float(value.detach())
    exact = values["plain, fp32"]
    base = statistics.median(took["plain, fp32"])
    print(f"{asked.positions} positions, {asked.hidden} hidden, {asked.vocab} words, "
          f"{torch.get_num_threads()} threads of {os.cpu_count()}\n")  # fmt: skip
    print("| forward and backward | ms | times plain fp32 | difference of the sum |")
    print("|---|---|---|---|")
    for name, times in took.items():
        median = statistics.median(times)
        off = abs(values[name] - exact) / abs(exact)
        print(f"| {name} | {1e3 * median:.1f} | {base / median:.2f} | {off:.1e} |")


if __name__ == "__main__":
    main()
