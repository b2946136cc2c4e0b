"""Objectives: one pass through the model -> one number a sentence, to be maximised.

What is optimised may vary; what is reported (log_px, kl, elbo) never does. All in nats.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..vae import Pass

FORMS = ("batch", "dimension", "sentence")


@dataclass(frozen=True)
class Elbo:
    """E_q[log p(x|z)] - beta KL(q(z|x) || p(z)) + w log p(bag|z), one number a sentence.

    Kingma & Welling 2014, eq. 3. The expectation is the mean of the K samples of the pass. With
    ``beta`` = 1, no free bits and no bag of words it is the evidence lower bound itself.

    beta: the KL's weight. Below 1 (or annealed from 0: Bowman et al. 2016) the posterior carries
    more than the bound would pay for; above 1 less (beta-VAE: Higgins et al. 2017).

    free_bits, form: the first lambda nats of KL cost nothing and get no gradient, so that the
    posterior isn't pulled onto the prior before the decoder has learned to use it.

    - ``batch``: sum_d max(lambda, mean_b KL_bd), per dimension on the batch mean (Kingma et al.
      2016, "Improved Variational Inference with Inverse Autoregressive Flow", eq. 15). Sentences
      may share a dimension's allowance out among themselves. The default.
    - ``dimension``: sum_d max(lambda, KL_bd), per dimension and sentence (Li et al. 2019, "A
      Surprisingly Effective Fix for Deep Latent Variable Modeling of Text", eq. 3). Stricter: every
      sentence pays for what it uses beyond lambda in each dimension.
    - ``sentence``: max(lambda, sum_d KL_bd) (Pelsmaeker & Aziz 2020, "Effective Estimation of
      Deep Generative Language Models", section 3.1). One allowance for the whole sentence; a few
      dimensions may use all of it.

    `free_bits` is lambda in nats: per dimension for the first two, for the sentence in the last.

    bow: the weight w of the bag-of-words loss (`parts.head.BagOfWords`).
    """

    beta: float = 1.0
    free_bits: float = 0.0
    form: str = "batch"
    bow: float = 0.0

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UserError(f"free-bits form {self.form!r} is not one of {', '.join(FORMS)}")

    def __call__(self, run: Pass) -> Float[Tensor, "B"]:
        value = run.log_px.mean(0) - self.beta * self._paid(run.kl, run.z.shape[-1])
        if self.bow:
            if run.log_bow is None:
                raise UserError("objective.bow needs a model built with a bag-of-words head")
            value = value + self.bow * run.log_bow.mean(0)
        return value

    def _paid(self, kl: Float[Tensor, "B G"], latent: int) -> Float[Tensor, "B"]:
        """The KL that is charged, (B,) nats; its mean over B is the published form."""
        floor = self.free_bits
        if floor == 0:
            return kl.sum(1)
        if self.form != "sentence" and kl.shape[1] == 1:
            floor *= latent  # no parts a dimension: the sum has all dimensions' allowance
        if self.form == "batch":
            return torch.where(kl.mean(0) > floor, kl, floor).sum(1)
        if self.form == "dimension":
            return kl.clamp_min(floor).sum(1)
        return kl.sum(1).clamp_min(floor)
