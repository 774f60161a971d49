"""The base class of all faults: a name, a time, and a JSON form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fault that happens ``at`` virtual seconds after the scenario is played.

    Raises
    ------
    ValueError
        A number is negative, or a probability more than 1.
    """

    at: float = 0.0

    kinds: ClassVar[dict[str, type[Event]]] = {}

    def __init_subclass__(cls, *, common: bool = False) -> None:
        """Register each kind by name: ``HostDeath`` is ``"host-death"``. A common base class has no name."""
        super().__init_subclass__()
        if not common:
            cls.kinds[cls.kind()] = cls

    def __post_init__(self) -> None:
        """Validate the fields now rather than when the event is due."""
        for field in fields(self):
            value = getattr(self, field.name)
            text = str(field.type)
            if isinstance(value, bool) or (value is None and "None" not in text):
                raise ValueError(f"{field.name} of {self.kind()} cannot be {value!r}")
            if text.startswith(("int", "float")) and value is not None:
                if not isinstance(value, int | float):
                    raise ValueError(f"{field.name} of {self.kind()} must be a number, not {value!r}")
                if value < 0 or (field.name == "probability" and value > 1):
                    raise ValueError(f"{field.name} of {self.kind()} cannot be {value}")

    @classmethod
    def kind(cls) -> str:
        """Return the name of this kind in JSON."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind(), **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Event:
        """Parse the output of `to_json`; raise ``ValueError`` if it is not valid."""
        values = dict(document)
        kind = cls.kinds.get(str(values.pop("kind", None)))
        if kind is None:
            raise ValueError(f"a fault is one of {', '.join(sorted(cls.kinds))}, not {document.get('kind')}")
        unknown = values.keys() - {field.name for field in fields(kind)}
        if unknown:
            raise ValueError(f"{kind.kind()} has no {', '.join(sorted(unknown))}")
        return kind(**values)
