"""One LSTM layer, forward and backward: python benchmarks/recurrent.py [--hidden 256 512 1024 ..]

torch's in fp32 and by bf16 products, and ours by bf16 products (`parts.lstm`), taking turns; the
medians of the rounds. Beside them, how far the gradient of what is read is from that in fp32, by
relative norm: where torch's is wrong, training takes ours. Needs a processor whose LSTM has bf16.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from midsentence.parts.lstm import Lstm, gradient_is_wrong


def forms(net: nn.LSTM, start: list[Tensor]) -> dict[str, Callable[[Tensor], Tensor]]:
    def torchs(x: Tensor, bf16: bool = False) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hidden: Tensor = net(x, tuple(s[None] for s in start))[0]
        return hidden.float()

    def ours(x: Tensor) -> Tensor:
        hidden: Tensor = Lstm.apply(x, *start, *net.parameters(), torch.bfloat16)[0]
        return hidden.float()

    return {"torch, fp32": torchs, "torch, bf16": lambda x: torchs(x, True), "ours, bf16": ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--embedding", type=int, default=512)
    parser.add_argument("--sentences", type=int, default=32)
    parser.add_argument("--words", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    torch.manual_seed(0)
    print(
        f"{asked.sentences} sentences of {asked.words} words, {torch.get_num_threads()} threads\n"
    )
    print("| hidden | torch, fp32, ms | torch, bf16 | ours, bf16 | difference of torch's gradient "
          "| of ours | taken |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for hidden in asked.hidden:
        net = nn.LSTM(asked.embedding, hidden, batch_first=True)
        x = torch.randn(asked.sentences, asked.words, asked.embedding, requires_grad=True)
        start = [torch.randn(asked.sentences, hidden) / 10 for _ in range(2)]
        ways, weight = forms(net, start), torch.randn(asked.sentences, asked.words, hidden)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        slope = {}
        for _ in range(asked.rounds):
            for name, way in ways.items():
                begun = time.perf_counter()
                value = (way(x) * weight).sum()
                slope[name], *_ = torch.autograd.grad(value, [x, *net.parameters()])
                seconds[name].append(time.perf_counter() - begun)
        exact, *others = slope.values()
        apart = [float((other - exact).norm() / exact.norm()) for other in others]
        with torch.autocast("cpu", torch.bfloat16):
            taken = "ours" if gradient_is_wrong(net, x) else "torch's"
        times = [f"{1000 * statistics.median(each):.1f}" for each in seconds.values()]
        print(f"| {hidden:,} | {' | '.join(times)} | {apart[0]:.4f} | {apart[1]:.4f} | {taken} |")


if __name__ == "__main__":
    main()
