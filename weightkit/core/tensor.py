"""What a state_dict looks like without its data."""

from __future__ import annotations

from weightkit.core.dtype import DType, dtype_named
from weightkit.core.record import MappingProxyType, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
else:
    from _collections_abc import Mapping  # what collections.abc is made of, loaded since Python started


def product(numbers: Iterable[int]) -> int:
    """All of them multiplied; 1 where there are none."""
    found = 1
    for number in numbers:
        found *= number
    return found


class TensorSpec(Record):
    """Element type and shape of one entry of a state_dict."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a scalar."""
        return product(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes, densely packed."""
        return self.numel * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


class StateSpec(Record, Mapping[str, TensorSpec]):
    """Ordered name -> TensorSpec, aliases included; ``aliases`` maps each second name of a tensor to its first."""

    tensors: Mapping[str, TensorSpec]
    aliases: Mapping[str, str] = MappingProxyType({})

    def __post_init__(self) -> None:
        for alias, of in self.aliases.items():
            if alias not in self.tensors or of not in self.tensors:
                raise ValueError(f"alias {alias!r} of {of!r}: both must be names of the state")
            if of in self.aliases:
                raise ValueError(f"alias {alias!r} points at {of!r}, which is an alias itself")
        self.__dict__["tensors"] = MappingProxyType(dict(self.tensors))
        self.__dict__["aliases"] = MappingProxyType(dict(self.aliases))

    def __getitem__(self, name: str) -> TensorSpec:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def canonical(self, name: str) -> str:
        """The first name of the tensor that ``name`` names."""
        return self.aliases.get(name, name)

    def unique(self) -> tuple[str, ...]:
        """Names without the aliases, in order."""
        return tuple(name for name in self.tensors if name not in self.aliases)

    @property
    def numel(self) -> int:
        """Elements of all tensors, each counted once."""
        return sum(self.tensors[name].numel for name in self.unique())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, each counted once."""
        return sum(self.tensors[name].nbytes for name in self.unique())

    def only(self, names: Iterable[str]) -> StateSpec:
        """The part of the state called ``names``; an alias whose first name is left out becomes a name of its own."""
        wanted = set(names)
        first: dict[str, str] = {}
        aliases: dict[str, str] = {}
        for name in self.tensors:
            if name in wanted:
                leader = first.setdefault(self.canonical(name), name)
                if leader != name:
                    aliases[name] = leader
        return StateSpec({n: s for n, s in self.tensors.items() if n in wanted}, aliases)


def spec(dtype: str, *shape: int) -> TensorSpec:
    """``spec("float32", 2, 3)``: shorthand for tables of literals."""
    return TensorSpec(dtype_named(dtype), shape)
