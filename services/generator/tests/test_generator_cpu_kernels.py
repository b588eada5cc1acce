"""The CPU kernels that replace vLLM's, against vLLM's own."""

import pytest
import torch

pytestmark = pytest.mark.timeout(60)
LAYOUTS = [
    [0] * 12,
    [1] * 5 + [-1] * 7 + [0] * 9,
    [2] * 4,
    [0, 1, 0, 1, 2, -1],  # too short to share
    [-1] * 8,
]


@pytest.fixture(scope="module")
def kernels():
    """vLLM's kernels and ours, by name, without changing the module."""
    from vllm.lora.ops.torch_ops import lora_ops

    from tuneproof_generator.engine import cpu_segments

    return {
        name: (getattr(lora_ops, name), shared(getattr(lora_ops, name)))
        for name, shared in (
            ("bgmv_shrink", cpu_segments._shrink),
            ("bgmv_expand", cpu_segments._expand),
            ("bgmv_expand_slice", cpu_segments._expand_slice),
        )
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "call",
    [
        ("bgmv_shrink", 16, 4, (0.5,)),
        ("bgmv_expand", 4, 24, ()),
        ("bgmv_expand", 4, 40, ()),  # wider than the output
        ("bgmv_expand_slice", 4, 8, (16, 8)),
    ],
)
def test_they_make_the_same(kernels, layout, dtype, call) -> None:
    name, width, high, more = call
    torch.manual_seed(1)
    indices = torch.tensor(layout)
    inputs = torch.randn(len(layout), width).to(dtype)
    weights = torch.randn(3, 1, high, width).to(dtype)
    before = torch.zeros(len(layout), 32) if name == "bgmv_shrink" else torch.randn(len(layout), 32)
    theirs, ours = before.clone(), before.clone()
    own, shared = kernels[name]
    is_of_base = indices == -1
    # To vLLM the index -1 is the last slot; `cpu_lora` hides that behind a product of zeros.
    if name != "bgmv_shrink":
        inputs[is_of_base] = 0
    own(inputs, weights, theirs, indices, *more)
    shared(inputs, weights, ours, indices, *more)
    if name == "bgmv_shrink":
        theirs[is_of_base] = 0
        ours[is_of_base] = 0
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
