"""hypercrl recall: train one memory encoder on associative recall; a cell of the recall suite."""

from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from hypercrl.base.errors import UserError
from hypercrl.base.lock import locked
from hypercrl.base.strict_json import write_json
from hypercrl.config.schema import RecallConfig
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.recall import measure_recall


def recall(config: DictConfig) -> None:
    """Measure what `config` describes, and leave result.json in its run folder.

    Raises:
        UserError: there is a result already, no folder is named or it cannot be written to, or
            settings do not fit together.
    """
    if OmegaConf.is_missing(config, "run_dir"):
        raise UserError("recall needs run_dir=FOLDER for its result.")
    folder = RunFolder(Path(config.run_dir))
    path = folder.result_path
    if folder.ended:
        raise UserError(f"{path} exists already and is left as it is. Name another run_dir.")
    settings = cast(RecallConfig, OmegaConf.to_object(config))
    result = measure_recall(settings, locked(folder.path))
    write_json(path, result, indent=2)
    most = str(result["pairs"])
    print(
        f"{result['label']}, width {result['width']}: recalls {result['recall'][most]:.1%} of "
        f"{most} pairs from {result['state_bytes']} bytes"
    )
