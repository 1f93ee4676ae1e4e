"""Tables of classes by name, which know what others have written as well."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import TypeVar, get_type_hints

from hypercrl.base.errors import UserError

Kind = TypeVar("Kind")
Settings = TypeVar("Settings")


class Table(dict[str, tuple[type[Kind], type[Settings]]]):
    """Per name a class and the dataclass of its settings: the program's own, and those of others.

    A name that is not among its own is the path "package.module:Class", or the name that an
    installed package has for an entry point of the group "hypercrl.KIND"; it is imported when it is
    asked for. Iteration is over the program's own.

    The settings of a class are what `config` is annotated as, in the class or in `__init__`.

    Args:
        kind: of the entry points.
        setting: that chooses among the table.
        base: of all classes.
        settings: base of all their settings.
        own: the program's own.
    """

    def __init__(
        self,
        kind: str,
        setting: str,
        base: type[Kind],
        settings: type[Settings],
        own: Mapping[str, tuple[type[Kind], type[Settings]]],
    ) -> None:
        super().__init__(own)
        self.kind, self.setting, self.base, self.settings = kind, setting, base, settings

    def __missing__(self, name: str) -> tuple[type[Kind], type[Settings]]:
        """
        Raises:
            UserError: there is no such class, or it or its settings are of another kind.
        """
        # Loads simulators, which only who plugs in shall wait for.
        from hypercrl_envs.plugins import plugged_in, whole

        try:
            found = plugged_in(name, self.kind, self, self.setting)
        except ValueError as error:
            raise UserError(f"{error}.") from error
        if (fault := whole(found, self.base)) is not None:
            raise UserError(f"{self.setting}={name}: {fault}.")
        return found, self._settings(found, name)

    def _settings(self, found: type[Kind], name: str) -> type[Settings]:
        """The dataclass of its settings."""
        try:
            hints = get_type_hints(found)
            schema = hints.get("config") or get_type_hints(found.__init__)["config"]
        except (NameError, KeyError) as error:
            raise UserError(
                f"{self.setting}={name}: annotate `config` in the class as the dataclass of its "
                f"settings, such as config: {self.settings.__name__} ({error})."
            ) from error
        if not (isinstance(schema, type) and issubclass(schema, self.settings)):
            raise UserError(
                f"{self.setting}={name}: its settings, {schema!r}, are to be a dataclass that "
                f"inherits from {self.settings.__name__}."
            )
        if not is_dataclass(schema) or "__dataclass_fields__" not in vars(schema):
            raise UserError(
                f"{self.setting}={name}: write @dataclass above {schema.__name__}; without it "
                "its settings are not seen."
            )
        return schema
