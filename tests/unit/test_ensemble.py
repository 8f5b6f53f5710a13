"""The sums of Calibri ensembles, and Qwen-Image's rescaling of guidance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comfyui_calibri.calibri.ensemble import combine, combine_guidance


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_sum_of_three_members() -> None:
    members = [draw(m, 2, 4, 6) for m in range(3)]
    weights = torch.tensor([[0.5, -1.25, 2.0], [1.0, 0.0, 0.25]])
    found = combine(torch.zeros(2, 4, 6), members, weights)
    torch.testing.assert_close(
        found[0], 0.5 * members[0][0] - 1.25 * members[1][0] + 2 * members[2][0]
    )
    torch.testing.assert_close(found[1], members[0][1] + 0.25 * members[2][1])


def test_one_member_of_weight_one_is_that_member() -> None:
    member, base = draw(0, 2, 3, 5, 5), draw(1, 2, 3, 5, 5)
    assert torch.equal(combine(base, [member], torch.ones(1, 1)), member)
    assert torch.equal(
        combine(base, [member, draw(2, 2, 3, 5, 5)], torch.tensor([[1.0, 0]])), member
    )


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("weights", [(7.0, -6.0), (0.9, 0.4)])
def test_denoised_latents_are_combined_as_velocities_are(
    weights: tuple[float, float], rescale: bool
) -> None:
    """Flow matching: x0 = x − σ v, and a velocity of 0 is x itself."""
    x, sigma = draw(0, 2, 4, 6, 8), 0.7
    cond, uncond = draw(1, 2, 4, 6, 8), draw(2, 2, 4, 6, 8)
    pair = torch.tensor([weights])
    velocity = combine_guidance(torch.zeros_like(x), cond, uncond, pair, rescale)
    denoised = combine_guidance(x, x - sigma * cond, x - sigma * uncond, pair, rescale)
    torch.testing.assert_close(denoised, x - sigma * velocity, rtol=1e-4, atol=1e-5)


def test_guidance_is_the_usual_formula() -> None:
    cond, uncond = draw(0, 1, 4, 4, 4), draw(1, 1, 4, 4, 4)
    found = combine_guidance(
        torch.zeros_like(cond), cond, uncond, torch.tensor([[7.0, -6.0]]), False
    )
    torch.testing.assert_close(found, uncond + 7.0 * (cond - uncond), rtol=1e-4, atol=1e-5)


def test_rescaling_keeps_each_tokens_direction_and_the_conditional_length() -> None:
    cond, uncond = draw(0, 2, 5, 8), draw(1, 2, 5, 8)
    pair, zero = torch.tensor([[4.0, -3.0]]), torch.zeros(2, 5, 8)
    plain = combine_guidance(zero, cond, uncond, pair, rescale=False)
    found = combine_guidance(zero, cond, uncond, pair, rescale=True)
    torch.testing.assert_close(found.norm(dim=-1), cond.norm(dim=-1))
    torch.testing.assert_close(torch.cosine_similarity(found, plain, dim=-1), torch.ones(2, 5))
    # A positive factor on both weights changes nothing.
    torch.testing.assert_close(combine_guidance(zero, cond, uncond, 2.5 * pair, True), found)


def pack(latents: Tensor) -> Tensor:
    """[B, C, H, W] -> tokens [B, H/2 · W/2, 4 C], as diffusers' pipeline packs them."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, 4 * channels)


def test_latents_are_rescaled_as_their_tokens_are() -> None:
    cond, uncond = draw(0, 2, 3, 4, 6), draw(1, 2, 3, 4, 6)
    pair = torch.tensor([[4.0, -3.0]])
    latents = combine_guidance(torch.zeros_like(cond), cond, uncond, pair, rescale=True)
    tokens = combine_guidance(torch.zeros(2, 6, 12), pack(cond), pack(uncond), pair, rescale=True)
    torch.testing.assert_close(pack(latents), tokens)
    video = combine_guidance(
        torch.zeros(2, 3, 1, 4, 6), cond[:, :, None], uncond[:, :, None], pair, rescale=True
    )
    assert torch.equal(video[:, :, 0], latents)


def test_odd_latents_have_cut_patches_at_their_edge() -> None:
    cond, uncond = draw(0, 1, 3, 5, 7), draw(1, 1, 3, 5, 7)
    padded = [torch.nn.functional.pad(v, (0, 1, 0, 1)) for v in (cond, uncond)]
    pair = torch.tensor([[4.0, -3.0]])
    found = combine_guidance(torch.zeros_like(cond), cond, uncond, pair, rescale=True)
    expected = combine_guidance(torch.zeros_like(padded[0]), *padded, pair, rescale=True)
    assert torch.equal(found, expected[..., :5, :7])


def test_a_token_without_length_stays_zero() -> None:
    cond = draw(0, 1, 3, 4)
    found = combine_guidance(torch.zeros_like(cond), cond, cond, torch.tensor([[1.0, -1.0]]), True)
    assert not found.any()
