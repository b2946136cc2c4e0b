"""Objectives: one pass through the model -> one number a sentence, to be maximised.

What is optimised may vary; what is reported (log_px, kl, elbo) never does. All in nats.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError
from ..parts.sphere import Uniform
from ..vae import Pass

FORMS = ("batch", "dimension", "sentence")


class Objective(nn.Module):
    """What all have in common: K latents a sentence, and terms that go beside any bound.

    samples: latents drawn for each sentence, K. bow: the weight of the bag-of-words loss
    (`parts.head.BagOfWords`). fraternal: the weight of `Pass.apart`, two dropout masks telling the
    words apart (Zolna et al. 2018, "Fraternal Dropout", eq. 4; ours sums over the words of a
    sentence, as everything else does).
    """

    adapts = False
    """Is there something of its own that moves with the KL, by `adapt`?"""

    def __init__(self, samples: int, bow: float, fraternal: float):
        super().__init__()
        if samples < 1:
            raise UserError("objective.samples must be at least 1")
        self.samples, self.bow, self.fraternal = samples, bow, fraternal

    def forward(self, run: Pass, beta: float = 1.0) -> Float[Tensor, "B"]:
        value = self.bound(run, beta)
        if self.bow:
            if run.log_bow is None:
                raise UserError("objective.bow needs a model built with a bag-of-words head")
            value = value + self.bow * run.log_bow.mean(0)
        if self.fraternal and run.apart is not None:
            value = value - self.fraternal * run.apart.mean(0)
        return value

    def bound(self, run: Pass, beta: float) -> Float[Tensor, "B"]:
        raise NotImplementedError

    def adapt(self, kl: Float[Tensor, ""], share: float) -> None:
        """Told the mean KL of every batch, after the step. share: its sentences, over those of an
        epoch's mean batch, so that a sentence counts the same whatever its length."""

    def weight(self, beta: float) -> Tensor | float:
        """What the KL is multiplied by, when the schedule says `beta`."""
        return beta


class Elbo(Objective):
    """E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), one number a sentence.

    Kingma & Welling 2014, eq. 3. The expectation is the mean of the K samples of the pass. With
    ``beta`` = 1 and no free bits it is the evidence lower bound itself.

    beta is the KL's weight. Below 1 (or annealed from 0: Bowman et al. 2016) the posterior carries
    more than the bound would pay for; above 1 less (beta-VAE: Higgins et al. 2017).

    free_bits: lambda, the first nats of KL, which cost nothing and get no gradient, so that the
    posterior isn't pulled onto the prior before the decoder has learned to use it; of a dimension,
    and of a sentence where `form` is ``sentence``. form: ``batch``, ``dimension`` or ``sentence``.

    - ``batch``: sum_d max(lambda, mean_b KL_bd), per dimension on the batch mean (Kingma et al.
      2016, "Improved Variational Inference with Inverse Autoregressive Flow", eq. 15). Sentences
      may share a dimension's allowance out among themselves. The default.
    - ``dimension``: sum_d max(lambda, KL_bd), per dimension and sentence (Li et al. 2019, "A
      Surprisingly Effective Fix for Deep Latent Variable Modeling of Text", eq. 3). Stricter: every
      sentence pays for what it uses beyond lambda in each dimension.
    - ``sentence``: max(lambda, sum_d KL_bd) (Pelsmaeker & Aziz 2020, "Effective Estimation of
      Deep Generative Language Models", section 3.1). One allowance for the whole sentence; a few
      dimensions may use all of it.
    """

    def __init__(
        self,
        *,
        samples: int = 1,
        free_bits: float = 0.2,
        form: str = "batch",
        bow: float = 0.0,
        fraternal: float = 0.0,
    ):
        super().__init__(samples, bow, fraternal)
        if form not in FORMS:
            raise UserError(f"free-bits form {form!r} is not one of {', '.join(FORMS)}")
        self.free_bits, self.form = free_bits, form

    def bound(self, run: Pass, beta: float) -> Float[Tensor, "B"]:
        return run.log_px.mean(0) - beta * self._paid(run.kl, run.z.shape[-1])

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


class Iwae(Objective):
    """log (1/K) sum_k w_k, w_k = p(x|z_k) (p(z_k) / q(z_k|x))^beta: tighter than the ELBO.

    Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", eq. 8. The value is that
    bound; its gradient is doubly reparameterised (Tucker et al. 2019, "Doubly Reparameterized
    Gradient Estimators for Monte Carlo Objectives", eq. 8 and 10), for with the plain one the
    encoder's signal drowns in noise as K grows: decoder and prior get the normalised weights v_k,
    the path through z gets v_k (1 - beta + beta v_k), the squares at beta = 1, and the direct path
    through q's parameters nothing. Raises UserError with `fraternal`, whose path through z is the
    words' own.
    """

    def __init__(self, *, samples: int = 8, bow: float = 0.0, fraternal: float = 0.0):
        super().__init__(samples, bow, fraternal)
        if fraternal:
            raise UserError("objective 'iwae' goes without objective.fraternal: set that to 0")

    def bound(self, run: Pass, beta: float) -> Float[Tensor, "B"]:
        # log q(z|x) with q held fixed: the direct path's gradient is taken off again. Asked afresh
        # as a function of z, for a flow has it from its noise.
        direct = run.q.log_prob(run.z.detach())
        log_qz = run.q.log_prob(run.z) - (direct - direct.detach())
        log_w = run.log_px + beta * (run.log_pz - log_qz)
        share = log_w.detach().softmax(0)
        if run.z.requires_grad:
            through_z = (1 - beta + beta * share)[..., None]
            run.z.register_hook(lambda slope: slope * through_z)
        value = log_w.detach().logsumexp(0) - math.log(len(log_w))
        carrier = (share * log_w).sum(0)
        return value + carrier - carrier.detach()


class Mmd(Objective):
    """E_q[log p(x|z)] - beta (1 - alpha) KL - (alpha + weight - 1) MMD^2(q(z), p(z)).

    Zhao, Song & Ermon 2019, "InfoVAE: Balancing Learning and Inference in Variational
    Autoencoders", eq. 6. With ``alpha`` = 1 no sentence pays for its own KL, only the average
    posterior is held to the prior: the Wasserstein autoencoder (Tolstikhin et al. 2018,
    "Wasserstein Auto-Encoders", algorithm 2), whose kernel this is: inverse multiquadratics of
    seven widths. The MMD is the unbiased estimate between the batch's latents and as many from the
    prior, which learns by it too where its samples have a gradient. A batch holds sentences of one
    length, or nearly, so it is the mean distance of the q(z | length): what z says of the length is
    charged too.

    alpha: the part of the sentences' own KL that is not paid; 1 at most. weight: lambda, of the
    average's distance from the prior; alpha + weight is 1 or more.
    """

    def __init__(
        self,
        *,
        samples: int = 1,
        alpha: float = 0.0,
        weight: float = 100.0,
        bow: float = 0.0,
        fraternal: float = 0.0,
    ):
        super().__init__(samples, bow, fraternal)
        if alpha + weight < 1 or alpha > 1:
            raise UserError("objective 'mmd' needs alpha <= 1 and alpha + weight >= 1")
        self.alpha, self.mmd_weight = alpha, weight

    def bound(self, run: Pass, beta: float) -> Float[Tensor, "B"]:
        value = run.log_px.mean(0) - (self.alpha + self.mmd_weight - 1) * self._apart(run)
        return value - beta * (1 - self.alpha) * run.kl.sum(1) if self.alpha < 1 else value

    def _apart(self, run: Pass) -> Tensor:
        many = len(run.z) if run.p.batch_shape else run.z.shape[:2].numel()
        draw = run.p.rsample if run.p.has_rsample else run.p.sample
        return mmd(
            run.z,
            draw(torch.Size([many])).flatten(0, -2),
            apart=2.0 if isinstance(run.p, Uniform) else 2.0 * run.z.shape[-1],
        )


def mmd(z: Float[Tensor, "K B D"], b: Float[Tensor, "N D"], *, apart: float) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy of two samples (Gretton et al. 2012, eq. 3, lemma 6).

    z: K of each of B sentences; two of one sentence are no two draws of q(z), and no pair. b: from
    the prior, N = K B. apart: the mean squared distance of two of them, which the kernel's widths
    are multiples of.
    """
    samples, sentences, width = z.shape
    a, count = z.flatten(0, 1), samples * sentences
    if sentences < 2 or not width:
        return (a.sum() + b.sum()) * 0  # several processes want all gradients, if only of nothing

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        far = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
        scales = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
        return torch.stack([s * apart / (s * apart + far) for s in scales]).sum(0)

    def within(x: Tensor, alike: Tensor) -> Tensor:
        return (kernel(x, x) * ~alike).sum() / (~alike).sum()

    itself = torch.eye(count, device=a.device, dtype=torch.bool)
    sentence = torch.arange(sentences, device=a.device).repeat(samples)
    same = sentence[:, None] == sentence
    return within(a, same) + within(b, itself) - 2 * kernel(a, b).mean()


class Rate(Objective):
    """The ELBO with the KL held at `target` nats a sentence by a multiplier that learns.

    The KL's weight is beta m, and after every step log m moves by `speed` times the relative error
    KL / target - 1, times the batch's sentences over those of a mean batch: a constraint on the
    rate, solved by the exponentiated multiplier of GECO (Rezende & Viola 2018, "Taming VAEs",
    algorithm 1, where it is on the reconstruction). With ``exactly`` = false, m stays at 1 or
    below: KL >= target, the minimum desired rate (Pelsmaeker & Aziz 2020, section 3.2), which lets
    a posterior have more than that if the bound pays for it. Use it with ``beta.kind=constant``, or
    the schedule moves what the multiplier balances.

    target: KL in nats a sentence. exactly: neither less nor more; false: at least. speed: of log m.
    """

    adapts = True
    log_m: Tensor

    def __init__(
        self,
        *,
        target: float = 8.0,
        exactly: bool = False,
        speed: float = 0.02,
        samples: int = 1,
        bow: float = 0.0,
        fraternal: float = 0.0,
    ):
        super().__init__(samples, bow, fraternal)
        if not (target > 0 and speed > 0):
            raise UserError("objective 'rate' needs a target of KL, and a speed, above 0")
        self.target, self.exactly, self.speed = target, exactly, speed
        self.register_buffer("log_m", torch.zeros(()))

    def bound(self, run: Pass, beta: float) -> Float[Tensor, "B"]:
        return run.log_px.mean(0) - self.weight(beta) * run.kl.sum(1)

    def adapt(self, kl: Float[Tensor, ""], share: float) -> None:
        error = torch.where(kl.isfinite(), kl / self.target - 1, 0).clamp(-1, 1)
        self.log_m = (self.log_m + self.speed * share * error).clamp(-10, 5 if self.exactly else 0)

    def weight(self, beta: float) -> Tensor | float:
        return beta * self.log_m.exp()


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "elbo": Elbo,
    "iwae": Iwae,
    "mmd": Mmd,
    "rate": Rate,
}
