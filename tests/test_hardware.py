import pytest
import torch
from helpers import config_of

from lm.base.hardware import gpu_peak_flops, has_fast_bf16, resolve_device_type
from lm.model.precision import PrecisionConfig


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
def test_a_gpu_has_its_own_peak_or_none(name, tflops):
    assert gpu_peak_flops(name) == (tflops and tflops * 1e12)


def test_an_unknown_or_missing_device_is_refused():
    assert resolve_device_type("cpu", "device") == "cpu"
    with pytest.raises(ValueError, match="--device=cdua must be one of auto, cpu, gpu, cuda, mps; did you mean 'cuda'"):
        resolve_device_type("cdua", "--device")
    if not torch.cuda.is_available():
        with pytest.raises(
            ValueError, match="device=gpu: PyTorch .* finds no such device on this machine; available: cpu"
        ):
            resolve_device_type("gpu", "device")


def test_auto_precision_follows_the_hardware(monkeypatch):
    assert PrecisionConfig().resolve("cpu") == ("bf16" if has_fast_bf16("cpu") else "fp32")
    monkeypatch.setattr("lm.model.precision.has_fast_bf16", lambda device: False)
    assert PrecisionConfig().resolve("cpu") == "fp32" and PrecisionConfig().resolve("cuda") == "fp16"
    assert PrecisionConfig("bf16").resolve("cpu") == "bf16"


def test_a_run_may_use_one_apple_gpu(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert config_of("device=auto").device == "auto"
    assert config_of("device=mps", "trainer.devices=1", "precision=fp32").trainer.devices == 1
    message = r"trainer.devices=2 must be at most 1: PyTorch finds 1 mps device\(s\) on this machine"
    with pytest.raises(ValueError, match=message):
        config_of("device=mps", "trainer.devices=2", "precision=fp32")


@pytest.mark.parametrize("count", [1, 4])
def test_a_run_may_use_at_most_the_available_gpus(monkeypatch, count):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert config_of("device=cuda", f"trainer.devices={count}").trainer.devices == count
    with pytest.raises(ValueError, match=f"trainer.devices={2 * count} must be at most {count}"):
        config_of("device=cuda", f"trainer.devices={2 * count}")


def test_any_number_of_processes_may_share_a_cpu():
    assert config_of("device=cpu", "trainer.devices=64", "data.batch_size=64").trainer.devices == 64
