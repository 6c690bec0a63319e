"""Run in an environment with a torchvision that fits its torch; skipped, with the reason, else."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from fastltc.jobs.models import MissingTorchvisionError, build_model, trainable_parameters

try:
    import torchvision.models  # noqa: F401
except (ImportError, RuntimeError) as error:
    reason = f"torchvision does not work here: {str(error).splitlines()[0]}"
    if os.environ.get("FASTLTC_REQUIRE_TORCHVISION"):
        raise
else:
    reason = ""
needs_torchvision = pytest.mark.skipif(bool(reason), reason=reason)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "torchvision is needed for resnet18, .*pip install 'fastltc.vision.'"),
        (
            RuntimeError("operator torchvision::nms does not exist\nmore"),
            r"installed and does not work with torch .*operator torchvision::nms does not exist\)",
        ),
    ],
)
def test_a_missing_or_broken_torchvision_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, message: str
) -> None:
    class Broken:
        def find_spec(self, name: str, *rest: object) -> None:
            if name.split(".")[0] == "torchvision" and error is not None:
                raise error

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    if error is None:
        monkeypatch.setitem(sys.modules, "torchvision", None)
    else:
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(MissingTorchvisionError, match=message):
        build_model("resnet18", (3, 64, 64), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "gru"}, "head: expected one of linear, ltc, cfc, got 'gru'"),
        ({"input_shape": (3, 28, 28)}, "image_size: resnet18 takes images from 32x32, got 28x28"),
        ({"cell": "ltc"}, "cell: no option of the model resnet18"),
    ],
)
def test_options_are_checked_before_torchvision_is_needed(
    options: dict[str, object], message: str
) -> None:
    arguments = {"input_shape": (3, 64, 64), "classes": 2, **options}
    with pytest.raises(ValueError, match=message):
        build_model("resnet18", **arguments)


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "parameters"),
    # torchvision's own count, less its last layer, plus the new one of a single logit.
    [
        ("resnet18", 11_689_512 - 513_000 + 513),
        ("resnext50_32x4d", 25_028_904 - 2_049_000 + 2_049),
        ("efficientnet_v2_s", 20_178_769),
    ],
)
def test_sizes_with_one_logit(name: str, parameters: int) -> None:
    model = build_model(name, (3, 64, 64), 2).eval()
    assert trainable_parameters(model) == parameters
    logits = model(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 2)
    assert logits[:, 0].tolist() == [0, 0]


@needs_torchvision
@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "efficientnet_v2_s"])
def test_features_are_those_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, (3, 64, 64), 3).eval()
    images = torch.rand(2, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        # The last layer of the network itself is the new one.
        expected = model.net((images - mean) / deviation)
        torch.testing.assert_close(model(images * 2 - 1), expected, rtol=1e-4, atol=1e-5)


@needs_torchvision
@pytest.mark.parametrize("head", ["ltc", "cfc"])
def test_a_liquid_head(head: str) -> None:
    model = build_model("resnet18", (3, 64, 64), 4, head=head, gain=2.0)
    logits = model(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 4)
    logits.sum().backward()
    assert model.net.conv1.weight.grad.abs().max() > 0


@needs_torchvision
def test_grey_images_go_to_all_channels() -> None:
    model = build_model("resnet18", (1, 64, 64), 2).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(grey), model(grey.expand(-1, 3, -1, -1)))


@needs_torchvision
def test_a_probe_on_a_frozen_backbone() -> None:
    torch.manual_seed(0)
    model = build_model("probe", (3, 64, 64), 2, backbone="resnet18")
    assert trainable_parameters(model) == 0
    labels = torch.arange(20) % 2
    images = torch.rand(20, 3, 64, 64) * 0.1 + labels.view(-1, 1, 1, 1)
    model.fit(lambda: [(images, labels)], lambda: [(images, labels)])
    assert (model(images).argmax(1) == labels).all()
