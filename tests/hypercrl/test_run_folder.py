"""A run's configuration, as it was given, comes back from its folder: also what one option has
and its group does not."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from hypercrl.config import TrainConfig, register
from hypercrl.paths import configs_dir
from hypercrl.run_folder import RunFolder

OPTIONS = [
    f"{group}={path.stem}"
    for group in ("memory", "method", "planner")
    for path in sorted((configs_dir() / group).glob("*.yaml"))
]


@pytest.mark.parametrize("option", OPTIONS)
def test_the_configuration_comes_back(option, tmp_path):
    register()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", [option])
    folder = RunFolder.create(tmp_path / "run", config)
    assert folder.config(TrainConfig) == OmegaConf.to_object(config)
