"""TRL's settings fit every transformers that the package admits."""

from dataclasses import dataclass, field

import pytest
from transformers import PrinterCallback, TrainerState

from labs_helpers.course.trl import trl_config, with_bar


@dataclass
class Before:
    """What transformers' training arguments were called before their renaming."""

    output_dir: str
    max_steps: int = -1
    use_cpu: bool = False
    bf16: bool = True
    gradient_checkpointing: bool = True
    report_to: str = "all"
    save_strategy: str = "steps"
    logging_strategy: str = "steps"
    disable_tqdm: bool | None = None


@dataclass
class After(Before):
    activation_checkpointing: bool | None = field(default=None)


@pytest.mark.parametrize("kind", [Before, After])
def test_nothing_is_recomputed_saved_or_reported_under_either_name(kind):
    config = trl_config(kind, output_dir="somewhere", max_steps=3)
    assert (config.output_dir, config.max_steps) == ("somewhere", 3)
    assert not config.bf16
    assert not config.gradient_checkpointing
    assert not getattr(config, "activation_checkpointing", False)
    assert (config.report_to, config.save_strategy) == ("none", "no")


def test_a_runs_own_settings_win():
    config = trl_config(After, output_dir="somewhere", logging_strategy="epoch")
    assert config.logging_strategy == "epoch"


def test_a_misspelt_setting_is_refused():
    with pytest.raises(TypeError, match="learning_rat"):
        trl_config(After, output_dir="somewhere", learning_rat=1e-4)


def test_a_bar_counts_the_steps_and_goes(monkeypatch):
    said = []

    class Drawn:
        def __init__(self, total, leave):
            said.append((total, leave))

        def update(self):
            said.append("step")

        def close(self):
            said.append("closed")

    class Trainer:
        def remove_callback(self, kind):
            said.append(kind)

        def add_callback(self, callback):
            self.callback = callback

    monkeypatch.setattr("labs_helpers.course.trl.tqdm", Drawn)
    bar = with_bar(Trainer()).callback
    state = TrainerState(max_steps=2)
    bar.on_train_begin(None, state, None)
    bar.on_step_end(None, state, None)
    bar.on_train_end(None, state, None)
    assert said == [PrinterCallback, (2, False), "step", "closed"]


@pytest.mark.slow  # TRL's import
def test_trl_itself_takes_them(tmp_path):
    from trl import DPOConfig

    config = trl_config(DPOConfig, output_dir=str(tmp_path), beta=0.2)
    assert config.beta == 0.2
    assert not config.gradient_checkpointing
