import pytest
import torch

from lm.hardware import card_peak, device_type, fast_bf16
from lm.precision import PrecisionConfig


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835),
        ("NVIDIA A100-SXM4-40GB", 312), ("NVIDIA GeForce RTX 4090", 165.2), ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA GeForce RTX 3060", 25.6), ("NVIDIA GeForce RTX 5060 Ti", 47.4), ("Tesla T4", 65), ("NVIDIA A10G", None),
        ("NVIDIA RTX A4000", None), ("NVIDIA RTX A1000", None), ("NVIDIA T400", None), ("NVIDIA GeForce GTX 1080", None),
        ("NVIDIA GeForce RTX 4070 Ti", None), ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("NVIDIA GeForce RTX 4080 SUPER", None),
    ],
)  # fmt: skip
def test_a_card_has_its_own_peak_or_none(name, tflops):
    assert card_peak(name) == (tflops and tflops * 1e12)


def test_devices():
    assert device_type("cpu", "device") == "cpu"
    with pytest.raises(ValueError, match="--device=cdua must be one of auto, cpu, gpu, cuda, mps; did you mean 'cuda'"):
        device_type("cdua", "--device")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device=gpu: torch .* finds no such device here; it finds cpu"):
            device_type("gpu", "device")


def test_auto_precision_follows_the_hardware(monkeypatch):
    assert PrecisionConfig().resolve("cpu") == ("bf16" if fast_bf16("cpu") else "fp32")
    monkeypatch.setattr("lm.precision.fast_bf16", lambda device: False)
    assert PrecisionConfig().resolve("cpu") == "fp32" and PrecisionConfig().resolve("cuda") == "fp16"
    assert PrecisionConfig("bf16").resolve("cpu") == "bf16"
