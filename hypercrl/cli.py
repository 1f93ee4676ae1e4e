"""The command line: a table of commands, each imported when it is called."""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hypercrl.base.errors import EndedElsewhere, UserError, of_the_system
from hypercrl.base.gpu_faults import GPU_FAULT, OUT_OF_MEMORY, gpu_fault
from hypercrl.base.interrupts import answered
from hypercrl.base.streams import outlived

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMANDS = {
    "train": ("hypercrl.commands.train", "train", "train a continual agent, or resume a run"),
    "play": ("hypercrl.commands.play", "play", "replay a trained agent on a task, to mp4"),
    "export": ("hypercrl.commands.export", "export", "a run's episodes or model, for others"),
    "bench": ("hypercrl.commands.bench", "", "a grid of runs on all cores or a cluster"),
    "recall": ("hypercrl.commands.recall", "recall", "train one memory encoder to recall pairs"),
    "report": ("hypercrl.commands.report", "", "tables, figures and one HTML page over runs"),
    "tasks": ("hypercrl.commands.tasks", "", "list task sequences and their parameters"),
}

HELP = {"-h", "--help"}

Job = Callable[["DictConfig"], float | None]
"""A command on its settings; what it returns is what a sweeper of Hydra's searches by."""

USAGE = """usage: hypercrl COMMAND [key=value ...]

{commands}

examples:
  hypercrl train env=push method=hnet preset=quick seed=0 device=cpu run_dir=DIR
  hypercrl train resume=DIR
  hypercrl train extend=DIR protocol.num_tasks=5 run_dir=LONGER
  hypercrl play run=DIR task=2 video=out.mp4 episodes=3
  hypercrl export run=DIR task=2 format=minari out=NAME episodes=100
  hypercrl bench method=hnet,coreset,single seed=0,1,2 preset=quick out=DIR
  hypercrl report DIR [DIR ...] [out=FOLDER]
  hypercrl tasks

Files env/NAME.yaml, method/NAME.yaml, … of configs/ in the current folder, or
of a folder named by --config-dir DIR, are choices in every command.

`hypercrl COMMAND --help` shows a command's settings, `hypercrl --version` the
version."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a mistake of the user's ends with one message and exit code 2."""
    with outlived():
        _main(arguments)


def _main(arguments: Sequence[str] | None) -> None:
    words, config_dir = _without_config_dir(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        rows = (f"  {name:8}{text}" for name, (_, _, text) in COMMANDS.items())
        print(USAGE.format(commands="\n".join(rows)))
        return
    if words[0] == "--version":
        print(f"hypercrl {sys.modules['hypercrl'].__version__}")
        return
    _make_current_folder_importable()
    try:
        with answered(), ExitStack() as stack:
            if config_dir is not None:
                from hypercrl.config.sources import config_folder

                stack.enter_context(config_folder(config_dir))
            _run(words[0], words[1:])
    except (UserError, MemoryError, RuntimeError) as error:
        code, message = _ending(error)
        print(f"hypercrl: {message}", file=sys.stderr)
        sys.exit(code)
    except EndedElsewhere as error:
        print(error.text, file=sys.stderr)
        sys.exit(error.code)
    except OSError as error:
        print(f"hypercrl: {of_the_system(error)}", file=sys.stderr)
        sys.exit(2)


def _ending(error: Exception) -> tuple[int, str]:
    """Exit code and message where a mistake, a lack of memory or a GPU ended the command.

    Raises:
        Exception: it is none of these.
    """
    if fault := gpu_fault(error):
        if fault.of_the_program:
            traceback.print_exception(error)
        return GPU_FAULT, fault.reason
    if isinstance(error, UserError):
        return 2, str(error)
    if _out_of_memory(error):
        # At another time, or on another machine, there may be enough.
        return 1, f"out of memory: {OUT_OF_MEMORY}"
    raise error


def _ended_elsewhere(fault: Exception) -> EndedElsewhere:
    """The same for the process that launched this one."""
    try:
        code, message = _ending(fault)
    except Exception:
        return EndedElsewhere("".join(traceback.format_exception(fault)).rstrip())
    return EndedElsewhere(f"hypercrl: {message}", code)


def _out_of_memory(error: Exception) -> bool:
    said = str(error)
    full = "can't allocate memory" in said or "out of memory" in said
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and full)


def _without_config_dir(words: Sequence[str]) -> tuple[list[str], Path | None]:
    """The words but for --config-dir, and what it names."""
    parser = argparse.ArgumentParser("hypercrl", add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    known, others = parser.parse_known_args(words)
    return others, known.config_dir


def _make_current_folder_importable() -> None:
    """For "module:function" in a configuration; last, so that it hides nothing installed."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)


def _run(command: str, words: list[str]) -> None:
    if command not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(command, COMMANDS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"there is no command {command!r}.{hint} Commands: {', '.join(COMMANDS)}.")
    module_name, hydra_function, _ = COMMANDS[command]
    if hydra_function:
        _run_with_hydra(command, words)
    else:
        importlib.import_module(module_name).run(words)


def _run_with_hydra(command: str, words: list[str]) -> None:
    """Run a command whose settings Hydra composes from these words, or say what they are."""
    from hypercrl.config.help import command_help
    from hypercrl.config.messages import check_choices, composing
    from hypercrl.config.multirun import check_jobs
    from hypercrl.config.options import options_first
    from hypercrl.config.registered import register
    from hypercrl.config.schema import in_groups

    register()
    asked = HELP & set(words)
    words = options_first(command, [w for w in words if w not in HELP])
    words = in_groups(command, words)
    check_choices(command, [w for w in words if "=" in w and not w.startswith("-")])
    module_name, function, about = COMMANDS[command]
    if asked:
        with composing(command, words):
            text = command_help(command, about, words)
        print(text)
        return
    module = importlib.import_module(module_name)
    looks = (getattr(module, name, None) for name in ("try_out", "check_job"))
    check_jobs(command, words, *looks)
    _compose_and_run(command, getattr(module, function), words)


def _compose_and_run(command: str, function: Job, words: list[str]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from hypercrl.base.paths import configs_dir
    from hypercrl.config.compose import composed_once
    from hypercrl.config.messages import composing
    from hypercrl.config.multirun import in_a_folder

    # Without this, Hydra prints its own account of an error and exits with code 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [f"hypercrl {command}", *words]
    decorate = hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name=command)
    raised = _Raised()
    known = HydraConfig.instance()
    with ExitStack() as stack, composing(command, words, raised.faults):
        stack.callback(setattr, known, "cfg", known.cfg)  # --cfg leaves its own there
        # Where Hydra leaves what nobody asked for.
        OmegaConf.register_new_resolver(
            "scratch", lambda: stack.enter_context(TemporaryDirectory()), replace=True
        )
        try:
            with composed_once(words), in_a_folder(raised.mistakes, raised.returned):
                decorate(_noting(raised, command, function, words))()
        except Exception:  # such as a sweeper's that got no score
            if not raised.mistakes:
                raise
    mistakes = raised.mistakes
    if len(mistakes) > 1 and all(isinstance(one, UserError) for one in mistakes):
        raise UserError("\n".join(map(str, mistakes))) from mistakes[0]
    if mistakes:
        raise mistakes[0]


@dataclass
class _Raised:
    """What jobs have raised, of which Hydra prints an account of its own if it sees it.

    Attributes:
        mistakes: what ends the command in one message; Hydra sees none of them.
        faults: everything else.
        returned: the scores of jobs that came to their end.
        process: the one that reads them; what a launcher of Hydra's runs in another is not noted.
    """

    mistakes: list[Exception] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    returned: list[float | None] = field(default_factory=list)
    process: int = field(default_factory=os.getpid)


def _noting(raised: _Raised, command: str, function: Job, words: list[str]) -> Job:
    """`function` with what it raises noted; where that is a mistake it returns None."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from hypercrl.config.ignored import check_used
    from hypercrl.config.messages import check_composed, explained
    from hypercrl.config.sweeps import HYDRAS_OWN
    from hypercrl_envs import TaskFault

    def job(config: "DictConfig") -> float | None:
        elsewhere = os.getpid() != raised.process
        try:
            with explained(command, words):
                given = HydraConfig.get().overrides.task
                check_composed(command, config, given)
                check_used([(config, given)])
                raised.returned.append(function(config))
                return raised.returned[-1]
        except (UserError, TaskFault, OSError) as error:
            text = of_the_system(error) if isinstance(error, OSError) else str(error)
            hydra_config = HydraConfig.get()
            several = hydra_config.mode == RunMode.MULTIRUN
            said = UserError(f"job {hydra_config.job.num}: {text}" if several else text)
            if elsewhere:
                raise said from error
            said.__cause__ = error
            raised.mistakes.append(said)
            if several and hydra_config.sweeper["_target_"] != HYDRAS_OWN:
                raise said from error  # a sweeper that searches by scores is to know of it
        except Exception as fault:
            if elsewhere:
                raise _ended_elsewhere(fault) from fault
            if not (_out_of_memory(fault) or gpu_fault(fault)):
                raised.faults.append(fault)
                raise
            raised.mistakes.append(fault)
        return None

    return job


if __name__ == "__main__":
    main()
