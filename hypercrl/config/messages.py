"""Hydra's and OmegaConf's errors, retold as one message that says what to do."""

import ast
import re
import shlex
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigIndexError,
    ConfigKeyError,
    ConfigTypeError,
    OmegaConfBaseException,
    ValidationError,
)

from hypercrl.base.counted import counted
from hypercrl.base.errors import EndedElsewhere, UserError, first_line, of_the_system
from hypercrl.base.paths import configs_dir
from hypercrl.base.settings import meaning
from hypercrl.base.wanted import no_entry, wrong_kind
from hypercrl.config.overrides import in_quotes, keys_of, parsed
from hypercrl.config.sources import ENV, TABLES
from hypercrl_envs import TaskFault
from hypercrl_envs.parameters import parameters_of
from hypercrl_envs.registry import find_task

_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.+?)=(.*)'")
_OF_A_TASK = re.compile(r"env\.tasks\[(\d+)\]\.(.+)")
_NOT_IN_A_JOB = "HydraConfig was not set"
_PARAMS = "hydra.sweeper.params"
_IN_A_FILE = re.compile(r"In '(.+?)': \w+ raised while ")


PLUGINS = {
    "hydra/sweeper=optuna": "'hypercrl[sweep]'",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
}
"""What the documents speak of and does not come along, and the packages that bring it."""


class KnownInJobs(UserError):
    """A setting refers to what Hydra knows in a job alone, such as ${hydra:job.num}."""


@contextmanager
def explained(command: str, words: Iterable[str] = ()) -> Iterator[None]:
    """Turn a configuration error inside the block into a UserError.

    Args:
        command: of `hypercrl`.
        words: the settings given; what they choose is what a message may suggest settings of.

    Raises:
        UserError: in place of the error; KnownInJobs where there is none in a job.
    """
    try:
        yield
    except MissingConfigException as error:
        raise UserError(_missing_choice(error, command)) from error
    except OverrideParseException as error:
        raise UserError(_unreadable(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        if _NOT_IN_A_JOB in str(error):
            key = getattr(error, "full_key", None)
            raise KnownInJobs(
                f"{f'{key}: ' if key else ''}a reference ${{hydra:…}} is known only in a job that "
                "hypercrl train begins; give the value itself."
            ) from error
        raise UserError(_wrong_key_or_value(error, command, words)) from error


@contextmanager
def composing(
    command: str, words: Iterable[str] = (), faults: Sequence[Exception] = ()
) -> Iterator[None]:
    """`explained`, and whatever else Hydra raises over words that it did not expect.

    Args:
        command: of `hypercrl`.
        words: the settings given.
        faults: what was raised by what was composed for; that is none of Hydra's.
    """
    with explained(command, words):
        try:
            yield
        except (UserError, EndedElsewhere):
            raise
        except (HydraException, OmegaConfBaseException) as error:
            if "Sweeping over Hydra's" in str(error):
                _check_sweepers_own(command, words)
            raise
        except OSError as error:
            raise UserError(of_the_system(error)) from error
        except Exception as error:
            if faults:
                raise
            if isinstance(error, AssertionError | AttributeError):  # over what is null
                _check_sweepers_own(command, words)
            raise UserError(f"the settings cannot be read: {first_line(error)}") from error


def _check_sweepers_own(command: str, words: Iterable[str]) -> None:
    """Raise UserError where words that Hydra did not take give its own sweeper parameters."""
    given = {each.key_or_group: each for each in parsed(word for word in words if "=" in word)}
    if "hydra/sweeper" in given:
        return
    swept: dict[str, Any] = {}
    for key, each in given.items():
        if key == _PARAMS and isinstance(value := each.value(), dict):
            swept |= value
        elif key.startswith(f"{_PARAMS}."):
            swept[key.removeprefix(f"{_PARAMS}.")] = each.get_value_string().strip("'\"")
    if swept:
        said = shlex.join(f"{key}={value}" for key, value in swept.items())
        raise UserError(
            f"{_PARAMS} are for another sweeper, chosen by hydra/sweeper=; Hydra's own takes the "
            f"values of a setting as they are: hypercrl {command} -m {said}"
        )


def check_choices(command: str, words: Iterable[str]) -> None:
    """Refuse a value that is neither a group's choice nor settings of it, which Hydra relies on.

    Args:
        command: of `hypercrl`.
        words: KEY=VALUE.

    Raises:
        UserError: names the group and its choices; or a word cannot be read.
    """
    with explained(command):
        overrides = parsed(words)
    groups = {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in configs_dir().iterdir()
        if folder.is_dir()
    }
    for given in overrides:
        group, value = given.key_or_group, given.value()
        if given.is_delete() or not (group in groups or group.startswith("hydra/")):
            continue
        values = value.list if isinstance(value, ChoiceSweep) else [value]
        if not all(isinstance(one, str | QuotedString | Glob | dict) for one in values):
            name = "preset" if group == command else group
            known = f" Choices: {', '.join(groups[group])}." if group in groups else ""
            said = (given.input_line or "").partition("=")[2]
            raise UserError(f"{name} is the name of one choice, not {said}.{known}")


def check_composed(command: str, config: DictConfig, overrides: Iterable[str]) -> None:
    """Refuse what Hydra composes all the same: keys too many or too few, names of no place, more
    tasks than there are.

    Args:
        command: of `hypercrl`.
        config: what was composed for it.
        overrides: the settings that were given. A preset's `protocol.num_tasks` is "at most".

    Raises:
        UserError: names the key.
    """
    for key in _unknown_keys(config):
        raise UserError(_no_setting(key, command, overrides))
    schema: Any = OmegaConf.get_type(config)
    for key in {f.name for f in fields(schema)} - set(config):
        raise UserError(f"{key} cannot be taken away.")
    for f in fields(schema):
        node: Any = config._get_node(f.name)
        if f.metadata.get("place") and node._value() == "":
            raise UserError(f"{f.name}= is empty; it is: {meaning(schema, f.name)}.")
    given = keys_of(overrides)
    for group in TABLES:
        if f"{group}.name" in given:
            name = OmegaConf.select(config, f"{group}.name") or "NAME"
            raise UserError(
                f"{group}.name goes with a choice, which brings its settings: give {group}={name} "
                "instead."
            )
        _check_made(group, config.get(group))
        _check_kind(group, config.get(group))
    if not (config.get("resume") or config.get("extend")) and given & {
        "protocol.num_tasks",
        "protocol.blur",
    }:
        check_tasks(config, given)


def _check_made(group: str, node: Any) -> None:
    """Raise UserError where a class of settings of others' refuses these in its __post_init__."""
    try:
        if isinstance(node, DictConfig):
            OmegaConf.to_object(node)
    except OmegaConfBaseException:  # told where it is read
        pass
    except Exception as error:
        raise UserError(
            f"{group}={node.name}: its settings cannot be: {first_line(error)}"
        ) from error


def _check_kind(group: str, node: Any) -> None:
    """Raise UserError where a file of one's own names a class whose settings it has not."""
    if not isinstance(node, DictConfig) or OmegaConf.is_missing(node, "name"):
        return
    kind, name = OmegaConf.get_type(node), node.name
    if is_dataclass(kind) and not issubclass(kind, TABLES[group][name][1]):
        raise UserError(
            f"{group}: the name {name} stands among settings that are not its own: begin the file "
            f"with defaults: [{name}], and give no other name in it."
        )


def check_tasks(config: DictConfig, given: Container[str]) -> None:
    """Raise UserError where there are fewer tasks than the settings that were given ask for."""
    wanted, order = config.protocol.num_tasks, config.protocol.order
    learned, whose = config.env.tasks, f"the sequence {config.env.name} has"
    if order is not None:
        learned, whose = order, "protocol.order names"
    if not learned:
        raise UserError(f"{whose} no tasks.")
    if "protocol.num_tasks" in given and wanted is not None and wanted > len(learned):
        raise UserError(
            f"protocol.num_tasks={wanted}, but {whose} {counted(len(learned), 'task')}; "
            "give at most that, or null for all."
        )
    if config.protocol.blur and 1 in (wanted, len(learned)):
        raise UserError(
            f"protocol.blur={config.protocol.blur} has no effect on one task, which follows on no "
            "other: give two at least, or leave it out."
        )


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that the dataclasses of a configuration do not have; added with +KEY=VALUE."""
    schema = OmegaConf.get_type(node)
    known = {f.name for f in fields(schema)} if is_dataclass(schema) else set(node)
    for key in node:
        if key not in known:
            yield f"{prefix}{key}"
        elif not OmegaConf.is_missing(node, key):
            value = node._get_node(key)
            if isinstance(value, DictConfig) and not value._is_none():
                yield from _unknown_keys(value, f"{prefix}{key}.")


def _unreadable(error: OverrideParseException) -> str:
    """A word that Hydra's grammar does not cover; most often a path with special characters."""
    key, equals, text = error.override.partition("=")
    if not equals:
        return f"cannot read {error.override!r}; settings are KEY=VALUE."
    if key.startswith("-"):
        return f"there is no option {error.override}; settings are KEY=VALUE, without dashes."
    quoted = shlex.quote(f"{key}={in_quotes(text)}")
    return f"cannot read {error.override!r}. If the value is one text, put it in quotes: {quoted}"


def _missing_choice(error: MissingConfigException, command: str) -> str:
    """A value that a group such as env= or method= does not have."""
    if error.missing_cfg_file is None or not error.options:
        return first_line(error)
    group, _, choice = error.missing_cfg_file.rpartition("/")
    group = "preset" if group == command else group
    options = sorted(error.options)
    near = _of_a_file(group, choice) or hint(choice, options)
    known = f"there is no {group}={choice}.{near} Choices: {', '.join(options)}."
    if not group.startswith("hydra/"):
        return known
    needed = PLUGINS.get(f"{group}={choice}")
    if needed is not None:
        return f"{group}={choice} needs a package more: pip install {needed}"
    return f"{known} Others come with plugins of Hydra's, which are to be installed."


def _of_a_file(group: str, choice: str) -> str:
    """How to choose a class of a file of one's own, where the file's name alone was given."""
    file = Path(f"{choice}.py")
    if group not in (ENV, *TABLES) or not file.is_file():
        return ""
    with suppress(OSError, ValueError, SyntaxError):  # told once it is imported
        parsed = ast.parse(file.read_bytes())
        classes = [each for each in parsed.body if isinstance(each, ast.ClassDef)]
        names = [each.name for each in classes if not each.decorator_list]  # no dataclasses
        if names:
            paths = " or ".join(f"{group}={choice}:{name}" for name in names)
            return f" For what is in {file}: {paths}."
    return ""


def _wrong_key_or_value(error: Exception, command: str, words: Iterable[str]) -> str:
    in_a_file = _IN_A_FILE.match(str(error))
    where = f"{in_a_file[1]}: " if in_a_file else ""
    cause: BaseException | None = error
    while not (cause is None or isinstance(cause, OmegaConfBaseException)):
        cause = cause.__cause__ or cause.__context__
    if cause is not None and (key := cause.full_key):
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return where + _no_setting(key, command, words)
        if any(word.partition("=")[0] == f"~{key}" for word in words):
            return f"{key} cannot be taken away."
        beyond = [word for word in words if word.startswith(f"{key}.")]
        if beyond and cause.value == {}:  # which Hydra makes of a setting that has none in it
            return _no_setting(beyond[-1].partition("=")[0], command, words)
        if isinstance(cause, ConfigIndexError):
            return where + no_entry(cause, _usual(command, words))
        if isinstance(cause, ValidationError | ConfigTypeError):
            wanted = wrong_kind(cause, list(words), _usual(command, words))
            if wanted is not None:
                return where + wanted
        return f"{where}{key}: {first_line(cause)}"
    if ambiguous := _AMBIGUOUS.match(str(error)):
        key, text = ambiguous.groups()
        quoted = shlex.quote(f"{key}={in_quotes(text)}")
        return (
            f"{key} takes one value, not {text}. Put a text with a comma in quotes: {quoted}; "
            f"several values are for hypercrl {command} --multirun, or for hypercrl bench."
        )
    return first_line(error)


def _no_setting(key: str, command: str, words: Iterable[str]) -> str:
    if of_a_task := _OF_A_TASK.fullmatch(key):
        index, name = of_a_task.groups()
        return (
            f"task {int(index) + 1} of the sequence is given no {name}, which could be changed: "
            f"add it, +env.tasks.{index}.{name}=…, or write it in the sequence's file."
        )
    if elsewhere := _of_others(key, command, words) or _as_a_tasks(key, command, words):
        return elsewhere
    chosen = [w for w in words if w.startswith(f"{key.partition('.')[0]}=") and "," not in w]
    if chosen and key in _known_keys(command, []):
        with_it = chosen[-1]
        return f"there is no {key!r} with {with_it}. See: hypercrl {command} {with_it} --help"
    known = [other for other in _known_keys(command, words) if other != key]
    return f"there is no setting {key!r}.{hint(key, known)} See: hypercrl {command} --help"


def _of_others(key: str, command: str, words: Iterable[str]) -> str:
    """Which choices of its group have a setting that the one which is chosen has not."""
    group, _, own = key.partition(".")
    have = [name for name, (_, kind) in TABLES.get(group, {}).items() if own in _names(kind)]
    usual = _usual(command, words)
    if not have or usual is None:
        return ""
    chosen = f"{group}={OmegaConf.select(usual, group).name}"
    return (
        f"there is no {key!r} with {chosen}, only with {group}={'|'.join(have)}. "
        f"See: hypercrl {command} {chosen} --help"
    )


def _names(schema: Any) -> set[str]:
    return {f.name for f in fields(schema)}


def _as_a_tasks(key: str, command: str, words: Iterable[str]) -> str:
    """Where a parameter of a task is given, if the key may be one of the sequence's tasks."""
    usual, name = _usual(command, words), key.removeprefix(f"{ENV}.")
    if "." in name or usual is None or ENV not in usual:
        return ""
    environment = ""
    for number, task in enumerate(usual.env.tasks):
        accepted = _accepted(task)
        own = f"env.tasks.{number}.{name}="
        option = f"env.tasks.{number}.options.{name}="
        if name in accepted:
            given = own if name in task else f"+{own}"
        elif name in (task.get("options") or {}):
            given = option
        else:
            if "options" in accepted:
                environment = environment or f"+{option}"
            continue
        return (
            f"there is no setting {key!r}; {name} is of a task of the sequence {usual.env.name}, "
            f"and is given by {given}, counted from 0."
        )
    if environment and any(word.startswith(f"{ENV}=") for word in words):
        return (
            f"there is no setting {key!r}. What an environment is made with is given by "
            f"{environment}, with the task's number from 0. See: hypercrl {command} --help"
        )
    return ""


def _accepted(task: Any) -> Container[str]:
    """Parameters of a task, if there is such a one."""
    with suppress(ValueError, TaskFault):
        return parameters_of(find_task(task["task"]))
    return ()


def _known_keys(command: str, words: Iterable[str]) -> list[str]:
    usual = _usual(command, words)
    return [] if usual is None else list(flat(usual))


def _usual(command: str, words: Iterable[str]) -> DictConfig | None:
    """What a command works on where nothing but these choices of groups is given."""
    chosen = [w for w in words if w.partition("=")[0] in (ENV, *TABLES) and "," not in w]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        for choices in (chosen, []):  # what is chosen may be what is wrong
            with suppress(HydraException, UserError):
                return compose(command, choices)
    return None


def flat(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys of a configuration, those of its groups with a dot."""
    for key in node:
        path = f"{prefix}{key}"
        yield path
        value: Any = None if OmegaConf.is_missing(node, key) else node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            yield from flat(value, f"{path}.")


def hint(word: str, known: Sequence[str]) -> str:
    """The known word that is nearest to one, as a question; empty where none is near."""
    near = get_close_matches(word, known, 1)
    if not near:
        last = {k.rpartition(".")[2]: k for k in known}
        near = [last[k] for k in get_close_matches(word.rpartition(".")[2], last, 1)]
    return f" Did you mean {near[0]!r}?" if near else ""
