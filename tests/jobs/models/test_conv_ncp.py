from __future__ import annotations

import pytest
import torch

from fastltc.jobs.models import build_model, trainable_parameters

PUBLISHED_HEAD = {
    "conv1.weight": (16, 1, 3, 3),
    "conv1.bias": (16,),
    "conv2.weight": (32, 16, 3, 3),
    "conv2.bias": (32,),
    "bn2.weight": (32,),
    "bn2.bias": (32,),
    "bn2.running_mean": (32,),
    "bn2.running_var": (32,),
    "bn2.num_batches_tracked": (),
    "conv3.weight": (64, 32, 5, 5),
    "conv3.bias": (64,),
    "conv4.weight": (128, 64, 5, 5),
    "conv4.bias": (128,),
    "bn4.weight": (128,),
    "bn4.bias": (128,),
    "bn4.running_mean": (128,),
    "bn4.running_var": (128,),
    "bn4.num_batches_tracked": (),
}


def test_the_head_is_the_published_one() -> None:
    model = build_model("conv-ncp", (1, 28, 28), classes=2, units=19)
    head = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if not name.startswith("rnn.")
    }
    assert head == PUBLISHED_HEAD
    assert trainable_parameters(model) - trainable_parameters(model.rnn) == 261_312


def test_the_liquid_layer_adds_its_parameters() -> None:
    model = build_model("conv-ncp", (1, 28, 28), classes=2, units=19)
    neurons, features, classes = 19, 16, 2
    expected = 3 * neurons + 4 * neurons * (neurons + features) + 2 * features + 2 * classes
    assert trainable_parameters(model.rnn) == expected
    assert trainable_parameters(model) == 264_065


@pytest.mark.parametrize(
    ("shape", "classes", "units", "steps"),
    [((1, 28, 28), 2, 19, 32), ((3, 28, 28), 5, 24, 32), ((1, 8, 8), 10, 40, 32)],
)
def test_shapes(shape: tuple[int, int, int], classes: int, units: int, steps: int) -> None:
    model = build_model("conv-ncp", shape, classes, units)
    images = torch.randn(3, *shape)
    assert model.features(images).shape == (3, steps, 16)
    assert model(images).shape == (3, classes)


def test_every_parameter_has_a_gradient() -> None:
    torch.manual_seed(0)
    model = build_model("conv-ncp", (1, 8, 8), classes=3, units=12)
    torch.nn.functional.cross_entropy(
        model(torch.randn(6, 1, 8, 8)), torch.arange(6) % 3
    ).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_without_a_gain_the_softmax_cannot_leave_a_narrow_range() -> None:
    torch.manual_seed(0)
    images = 50 * torch.randn(200, 1, 8, 8)
    plain = build_model("conv-ncp", (1, 8, 8), classes=2, units=12, gain=1.0).eval()
    wide = build_model("conv-ncp", (1, 8, 8), classes=2, units=12, gain=5.0).eval()
    wide.load_state_dict(plain.state_dict())
    with torch.no_grad():
        narrow_range = plain(images).softmax(dim=1)
        torch.testing.assert_close(wide(images), 5 * plain(images))
        wide_range = wide(images).softmax(dim=1)
    # Potentials stay within [-1, 1], so the logits of two classes differ by at most 2.
    assert narrow_range.min() >= torch.tensor([-1.0, 1.0]).softmax(dim=0)[0]
    assert wide_range.max() > narrow_range.max()


def test_the_seed_decides_the_parameters() -> None:
    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return build_model("conv-ncp", (1, 8, 8), classes=3, units=12).state_dict()

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(first["rnn.rnn_cell.w"], other["rnn.rnn_cell.w"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "conv-lstm"}, "model: expected one of conv-ncp, .*, got 'conv-lstm'"),
        ({"cell": "gru"}, "cell: expected one of ltc, cfc, got 'gru'"),
        ({"units": 12, "classes": 10}, "units: expected at least 13 for 10 outputs.*got 12"),
        ({"classes": 1}, "classes: expected at least 2, got 1"),
        ({"input_shape": (1, 6, 28)}, "expected at least 8x8 pixels, got 6x28"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict[str, object], message: str) -> None:
    arguments = {"name": "conv-ncp", "input_shape": (1, 8, 8), "classes": 3, "units": 12, **changes}
    with pytest.raises(ValueError, match=message):
        build_model(**arguments)


def test_images_of_another_shape() -> None:
    model = build_model("conv-ncp", (1, 8, 8), classes=3, units=12)
    with pytest.raises(ValueError, match=r"images: expected \[B, 1, 8, 8\], got \[2, 3, 8, 8\]"):
        model(torch.zeros(2, 3, 8, 8))
