"""A policy in a folder, and an adapter as training leaves it."""

import pytest
import torch


@pytest.fixture
def policy_dir(tmp_path, tiny_policy, tiny_tokenizer):
    folder = tmp_path / "policy"
    tiny_policy().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def add_to_adapters(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
