"""What the tests compose in less time is what Hydra composes."""

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

from hypercrl.config.compose import composed

PLACES = (
    (defaults_list, "_create_defaults_list"),
    (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
)
OF_HYDRA = [getattr(*place) for place in PLACES]
WORDS = (
    ("train", "seed=3", "dynamics={hidden: [8], probabilistic: true}"),
    ("train", "seed=4", "logger=[]", "run_dir='a b'"),
    ("train", "method=ewc", "method.fisher_samples=7", "preset=smoke", "env=door"),
    ("train", "method=ewc", "memory=gru", "planner=icem", "planner.noise_beta=1"),
    ("play", "run=push_demo", "video=null"),
)


def texts():
    return [OmegaConf.to_yaml(composed(command, words)) for command, *words in WORDS]


def test_it_is_the_same(monkeypatch):
    first, again = texts(), texts()
    for place, function in zip(PLACES, OF_HYDRA, strict=True):
        monkeypatch.setattr(*place, function)
    assert first == again == texts()


def test_who_writes_into_one_changes_no_other():
    config = composed("train", ["env=push"])
    kept = OmegaConf.to_yaml(config)
    config.env.tasks[0].densities = [1, 2]
    config.protocol.updates = 12345
    assert OmegaConf.to_yaml(composed("train", ["env=push"])) == kept


def test_a_file_of_ones_own_is_read_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/method").mkdir(parents=True)
    for beta in (1.0, 2.0):
        text = f"defaults: [hnet]\nbeta: {beta}\n"
        (tmp_path / "configs/method/mine.yaml").write_text(text)
        assert composed("train", ["method=mine"]).method.beta == beta
