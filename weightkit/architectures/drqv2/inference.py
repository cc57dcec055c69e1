"""What a file's tensors say about the DrQ-v2 net they come from, whatever its layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isqrt

from weightkit.architectures.drqv2.config import DrQV2Config, parse_settings
from weightkit.core.report import Finding, Severity
from weightkit.core.rule import Mapping as Rules
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.engine.matching import Matcher
from weightkit.errors import UsageError

NOT_IN_WEIGHTS = frozenset(
    {
        "cameras", "image_channels", "image_height", "image_width", "num_downsample_convs", "fusion", "value_limit",
        "value_transform",
    }
)  # fmt: skip
"""What ``--set`` may say of the source; of the rest the weights speak, and ``--set`` describes the target."""
_MOST = 1000
"""What a file says about itself is believed up to here: no such net has more frames or convolutions."""


@dataclass(slots=True)
class Stated:
    """What a project's own configuration says of the net, None where it says nothing."""

    cameras: tuple[str, ...] | None = None
    frame_stack: object = None
    image_size: tuple[int, int] | None = None
    num_downsample_convs: object = None
    fusion: object = None
    value_limit: object = None
    value_transform: object = None
    shared_critic_trunk: bool = False
    assumed: dict[str, object] = field(default_factory=dict)
    """What the project fixes in its code, so that it is no assumption: key -> value."""


class UnusableError(Exception):
    """The tensors are of this family of nets and cannot be used as they are; ``finding`` says why."""

    def __init__(self, subject: str, message: str, hint: str = "", code: str = "WK107") -> None:
        super().__init__(message)
        self.finding = Finding(code, Severity.ERROR, subject, message, hint)


def native_names(state: StateSpec, rules: Rules, cameras: tuple[str, ...]) -> StateSpec:
    """The tensors that ``rules`` know, under the net's own names."""
    matcher = Matcher(rules, {"cameras": cameras})
    found: dict[str, TensorSpec] = {}
    for name, spec in state.items():
        hits = matcher.matches(matcher.first_spelling(name, state))
        filler = matcher.fillers.get(hits[0].rule.id) if len(hits) == 1 else None
        goal = filler.fill(hits[0].bound) if filler is not None else None
        if goal is not None:
            found.setdefault(goal, spec)
    return StateSpec(found)


def infer(
    state: StateSpec, cameras: tuple[str, ...], stated: Stated, settings: Mapping[str, str]
) -> tuple[DrQV2Config, list[Finding], str]:
    """The configuration that shapes and the project's configuration give, what was assumed, and a sentence about it.

    ``state`` has the net's own names, as `native_names` gives them, with ``cameras`` in tower order. Raises
    UnusableError where the tensors fit no such net, UsageError for a setting that makes no sense.
    """
    return _Inference(state, cameras, stated, settings).run()


class _Inference:
    """One inference: the findings gathered so far."""

    def __init__(self, state: StateSpec, cameras: tuple[str, ...], stated: Stated, settings: Mapping[str, str]) -> None:
        self.state, self.cameras, self.stated = state, cameras, stated
        self.chosen = {k: v for k, v in parse_settings(settings).items() if k in NOT_IN_WEIGHTS}
        self.findings: list[Finding] = []

    def run(self) -> tuple[DrQV2Config, list[Finding], str]:
        first = f"encoder.{self.cameras[0]}"
        convs = sum(1 for name in self.state if name.startswith(f"{first}.") and name.endswith(".weight"))
        channels, stacked = self._length(f"{first}.0.weight", 0), self._length(f"{first}.0.weight", 1)
        note = "RGB images are assumed: channels per frame are not stored"
        image_channels = self._whole("image_channels", None, 3, note)
        frames = self._whole(
            "frame_stack",
            self.stated.frame_stack,
            max(stacked // image_channels, 1),
            f"{stacked} input channels are read as {stacked // image_channels} RGB frames: frame_stack is not stored",
        )
        if image_channels * frames != stacked:
            message = f"{image_channels} channels of {frames} frames are {image_channels * frames}, the first "
            raise UnusableError(f"{first}.0.weight", f"{message}convolution reads {stacked}")
        down = self._whole(
            "num_downsample_convs",
            self.stated.num_downsample_convs,
            1,
            "strides are not stored: RoboBase's default is assumed, one convolution of stride 2, then stride 1",
            least=0,
        )
        atoms = self._length("critic.qs.0.head.weight", 0) if "critic.qs.0.head.weight" in self.state else 1
        visual, bottleneck = (self._length("actor.visual_trunk.0.weight", axis) for axis in (1, 0))
        fusion, size = self._views(visual, channels, down, convs - down)
        nodes: list[int] = []
        while f"actor.mlp.{2 * len(nodes)}.weight" in self.state:
            nodes.append(self._length(f"actor.mlp.{2 * len(nodes)}.weight", 0))
        critics = {name.split(".")[2] for name in self.state if name.startswith("critic.qs.")}
        limit, transform = self._values(atoms)
        try:
            config = DrQV2Config(
                cameras=self._camera_names(),
                image_channels=image_channels,
                image_height=size[0],
                image_width=size[1],
                frame_stack=frames,
                state_dim=self._width("actor.state_trunk.0.weight") // frames,
                action_dim=self._length("actor.head.weight", 0),
                encoder_channels=channels,
                num_downsample_convs=down,
                num_post_downsample_convs=convs - down,
                bottleneck_size=bottleneck,
                mlp_nodes=tuple(nodes),
                num_critics=max(len(critics), 1),
                fusion=fusion,
                time_dim=self._width("critic.qs.0.time_trunk.0.weight"),
                shared_critic_trunk=self.stated.shared_critic_trunk,
                num_atoms=atoms,
                value_limit=limit,
                value_transform=transform,
            )
        except ValueError as error:
            raise UnusableError("config", f"the shapes fit no drqv2 configuration: {error}") from None
        evidence = (
            f"shapes of {frames} stacked frames of {config.image_height}x{config.image_width}, state "
            f"{config.state_dim}, {config.action_dim} actions, MLP {list(config.mlp_nodes)}"
        )
        return config, self.findings, evidence

    def _length(self, name: str, axis: int) -> int:
        """How long a weight matrix or kernel is on ``axis``."""
        spec = self.state.tensors.get(name)
        if spec is None or len(spec.shape) <= axis or spec.shape[axis] < 1:
            message = f"the shapes fit no drqv2 configuration: {name} is {spec or 'missing'}"
            raise UnusableError(name, message)
        return spec.shape[axis]

    def _width(self, name: str) -> int:
        """How many inputs a weight matrix has, 0 where there is none."""
        return self._length(name, 1) if name in self.state else 0

    def _say(self, subject: str, message: str, hint: str = "") -> None:
        if subject not in self.stated.assumed:
            self.findings.append(Finding("WK108", Severity.INFO, subject, message, hint))

    def _whole(self, key: str, stated: object, assumed: int, note: str, least: int = 1) -> int:
        """A whole number: as the project's configuration says, as chosen, or as assumed."""
        if isinstance(stated, int) and not isinstance(stated, bool) and least <= stated <= _MOST:
            return stated
        value = self.chosen.get(key)
        if isinstance(value, int):
            return value
        self._say(key, note)
        return assumed

    def _camera_names(self) -> tuple[str, ...]:
        towers = len(self.cameras)
        names = self.stated.cameras
        if names is not None and len(names) != towers:
            message = f"its configuration names the cameras {', '.join(names)}, the tensors are of {towers}"
            raise UnusableError("cameras", message, "look at who wrote it")
        names = names or self.chosen.get("cameras")  # type: ignore[assignment]
        if names is not None:
            if len(names) != towers:
                raise UsageError(f"--set cameras={','.join(names)}: the file has {towers} camera towers")
            return names
        several = ", in the file's order" if towers > 1 else ""
        self._say(
            "cameras",
            f"camera names are not stored: called {', '.join(self.cameras)}{several}",
            "name them in tower order: --set cameras=front,wrist",
        )
        return self.cameras

    def _values(self, atoms: int) -> tuple[float, bool]:
        """What the atoms of a distributional critic stand for."""
        limit, transform = self.stated.value_limit, self.stated.value_transform
        limit = self.chosen.get("value_limit") if limit is None else limit
        transform = self.chosen.get("value_transform") if transform is None else transform
        known = isinstance(limit, (int, float)) and not isinstance(limit, bool) and 0 < limit < inf
        if atoms > 1 and not (known and isinstance(transform, bool)):
            note = f"{atoms} atoms are read as values over -20..20 on RoboBase's compressed scale: it is not stored"
            self._say("value_limit", note, "otherwise: --set value_limit=20 --set value_transform=true")
        return (float(limit) if known else 20.0), (transform if isinstance(transform, bool) else True)  # type: ignore[arg-type]

    def _views(self, visual: int, channels: int, down: int, post: int) -> tuple[str, tuple[int, int]]:
        """How views are fused, and the images' height and width in pixels."""
        fusion = self.stated.fusion or self.chosen.get("fusion")
        height, width = self.chosen.get("image_height"), self.chosen.get("image_width")
        chosen = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        size = self.stated.image_size or chosen
        count = len(self.cameras)
        if fusion not in ("flatten", "average", "sum"):
            fusion = "flatten"
            whole = visual % (count * channels) == 0 and _is_square(visual // (count * channels))
            cells = _cells(size, down, post) * channels if size is not None else 0
            if count > 1 and (visual == cells or (size is None and not whole and _is_square(visual // channels))):
                message = f"the features of {count} cameras are averaged or summed: which of them is not stored"
                hint = "say it: --set fusion=average, or --set fusion=sum"
                raise UnusableError("fusion", message, hint, "WK108")
        maps = channels * (count if fusion == "flatten" else 1)
        return str(fusion), size or self._square(visual, maps, down, post)

    def _square(self, visual: int, maps: int, down: int, post: int) -> tuple[int, int]:
        """The even square that the features' number allows."""
        cells = isqrt(visual // maps)
        if cells * cells * maps != visual:
            message = f"{visual} features of {maps} maps are no square: the image size is not stored"
            raise UnusableError("image_size", message, "say it: --set image_size=HEIGHTxWIDTH", "WK108")
        side = cells + 2 * post
        for _ in range(down):
            side = (side - 1) * 2 + 3
        side += side % 2
        note = f"square images are assumed: {side}x{side}" + (f" (weights alone fit {side - 1} too)" if down else "")
        self._say("image_size", note, "otherwise: --set image_size=HEIGHTxWIDTH")
        return side, side


def _is_square(number: int) -> bool:
    return number > 0 and isqrt(number) ** 2 == number


def _cells(size: tuple[int, int], down: int, post: int) -> int:
    """Cells of a feature map of images of this size."""
    sides = []
    for side in size:
        for _ in range(down):
            side = (side - 3) // 2 + 1
        sides.append(side - 2 * post)
    return max(sides[0], 0) * max(sides[1], 0)
