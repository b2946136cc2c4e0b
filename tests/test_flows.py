"""What a flow begins as, which training then starts from."""

import pytest
import torch

from midsentence.parts.flows import FLOWS


@pytest.mark.parametrize("latent", [2, 16])
@pytest.mark.parametrize("kind", FLOWS)
def test_every_flow_begins_near_the_identity(kind, latent):
    torch.manual_seed(0)
    flow = FLOWS[kind](latent, 4, 16, 8)
    x = torch.randn(200, latent)
    z, volume = x, torch.zeros(200)
    with torch.no_grad():
        for step in flow(torch.randn(200, 8)):
            z, slope = step.ahead(z)
            volume = volume + slope
    assert 0 < (z - x).square().mean().sqrt() < 0.25
    assert volume.abs().mean() < 0.5
