"""DrQ-v2 for several named cameras and a low-dimensional state.

Source: Yarats et al. 2021 (DrQ-v2), whose critics share one trunk; per-camera towers, view fusion, bottlenecked trunks,
separate critics, critics that see the time and distributional critics as RoboBase has them. Function-equal to
facebookresearch's `drqv2` and to RoboBase's `EncoderCNNMultiViewDownsampleWithStrides`, `FusionMultiCamFeature` and
`MLPWithBottleneckFeatures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weightkit.nets.blocks import mlp, orthogonal_init, trunk
from weightkit.nets.observing import STATE_KEY, TIME_KEY, images_by_camera, vector

FUSIONS = ("flatten", "average", "sum")


def conv_output_size(size: int, num_downsample_convs: int, num_post_convs: int) -> int:
    """Pixels along one side after the 3x3 convolutions without padding; below 1 where the image is too small."""
    for _ in range(num_downsample_convs):
        size = (size - 3) // 2 + 1
    return size - 2 * num_post_convs


class Encoder(nn.Module):
    """One tower of 3x3 convolutions per camera: first those of stride 2, then those of stride 1, ReLU after each.

    ``{camera: (B, T*C, H, W) float in [0, 1]} -> (B, cameras * channels * h * w)``, cameras in their declared order;
    with ``fusion`` "average" or "sum" ``(B, channels * h * w)``.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        in_channels: int,
        channels: int,
        num_downsample_convs: int,
        num_post_convs: int,
        fusion: str = "flatten",
    ) -> None:
        super().__init__()
        self.cameras = tuple(cameras)
        self.fusion = fusion
        for camera in self.cameras:
            layers: list[nn.Module] = []
            width = in_channels
            for index in range(num_downsample_convs + num_post_convs):
                stride = 2 if index < num_downsample_convs else 1
                layers += [nn.Conv2d(width, channels, 3, stride=stride), nn.ReLU()]
                width = channels
            self._modules[camera] = nn.Sequential(*layers)  # add_module refuses names such as 'type' or 'half'

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        features = [self._modules[camera](images[camera] - 0.5).flatten(1) for camera in self.cameras]  # type: ignore[misc]
        if self.fusion == "flatten":
            return torch.cat(features, dim=1)
        stacked = torch.stack(features)
        return stacked.mean(dim=0) if self.fusion == "average" else stacked.sum(dim=0)


Trunks = tuple[nn.Module, "nn.Module | None", "nn.Module | None"]


def _trunks(sizes: tuple[int, int, int], bottleneck_dim: int) -> Trunks:
    visual, state, time = sizes
    return (
        trunk(visual, bottleneck_dim),
        trunk(state, bottleneck_dim) if state else None,
        trunk(time, bottleneck_dim) if time else None,
    )


class BottleneckMLP(nn.Module):
    """Visual features, state and time through a trunk each, then an MLP and a linear head.

    ``(B, visual), (B, state) or None, (B, time) or None, (B, extra) or None -> (B, out)``; ``extra`` (the action) skips
    the trunks. With ``trunks_of`` its trunks are those of another such net, the same modules.
    """

    def __init__(
        self,
        visual_dim: int,
        state_dim: int,
        time_dim: int,
        extra_dim: int,
        bottleneck_dim: int,
        hidden_dims: Sequence[int],
        out_dim: int,
        trunks_of: BottleneckMLP | None = None,
    ) -> None:
        super().__init__()
        trunks = (
            trunks_of.trunks() if trunks_of is not None else _trunks((visual_dim, state_dim, time_dim), bottleneck_dim)
        )
        self.visual_trunk, self.state_trunk, self.time_trunk = trunks
        width = bottleneck_dim * (1 + bool(state_dim) + bool(time_dim)) + extra_dim
        self.mlp = mlp(width, hidden_dims)
        self.head = nn.Linear(hidden_dims[-1], out_dim)

    def trunks(self) -> Trunks:
        """The trunks of visual features, state and time; None where the net does not see one of them."""
        return self.visual_trunk, self.state_trunk, self.time_trunk

    def forward(
        self, visual: Tensor, state: Tensor | None, time: Tensor | None = None, extra: Tensor | None = None
    ) -> Tensor:
        parts = [self.visual_trunk(visual)]
        if self.state_trunk is not None:
            parts.append(self.state_trunk(state))
        if self.time_trunk is not None:
            parts.append(self.time_trunk(time))
        if extra is not None:
            parts.append(extra)
        result: Tensor = self.head(self.mlp(torch.cat(parts, dim=1)))
        return result


class ValueDistribution(nn.Module):
    """What the atoms of a distributional critic stand for: values spread evenly over ``-limit..limit``.

    With ``transform`` the even spacing is that of ``sign(x) (sqrt(|x| + 1) - 1) + x / 1000``. Source: Bellemare et al.
    2017 (C51), section 4; the transform is that of Kapturowski et al. 2019 (R2D2), section 2.3, as RoboBase uses them.
    """

    _EPSILON = 1e-3

    def __init__(self, num_atoms: int, limit: float, transform: bool) -> None:
        super().__init__()
        self.num_atoms, self.limit, self.transform = num_atoms, limit, transform

    def forward(self, logits: Tensor) -> Tensor:
        """The expected value: ``(..., num_atoms) -> (...)``."""
        half = self.num_atoms // 2
        atoms = torch.linspace(-half, half, self.num_atoms, device=logits.device)
        expected = (torch.softmax(logits.float(), dim=-1) @ atoms) * (2 * self.limit / (self.num_atoms - 1))
        if not self.transform:
            return expected
        eps = self._EPSILON
        root = torch.sqrt(1 + 4 * eps * (eps + 1 + expected.abs())) / 2 / eps - 1 / 2 / eps
        return expected.sign() * (root.square() - 1)


class Critic(nn.Module):
    """Q functions, independent or on one shared trunk.

    ``(B, visual), (B, state) or None, (B, A), (B, time) or None -> (num_critics, B)``; ``logits`` gives what the heads
    say, ``(num_critics, B, num_atoms)``.
    """

    def __init__(
        self, num_critics: int, *, shared_trunk: bool, num_atoms: int, limit: float, transform: bool, **kwargs: Any
    ) -> None:
        super().__init__()
        nets: list[BottleneckMLP] = []
        for _ in range(num_critics):
            trunks_of = nets[0] if shared_trunk and nets else None
            nets.append(BottleneckMLP(out_dim=num_atoms, trunks_of=trunks_of, **kwargs))
        self.qs = nn.ModuleList(nets)
        self.distribution = ValueDistribution(num_atoms, limit, transform) if num_atoms > 1 else None

    def logits(self, visual: Tensor, state: Tensor | None, action: Tensor, time: Tensor | None = None) -> Tensor:
        return torch.stack([q(visual, state, time, action) for q in self.qs])

    def forward(self, visual: Tensor, state: Tensor | None, action: Tensor, time: Tensor | None = None) -> Tensor:
        said = self.logits(visual, state, action, time)
        if self.distribution is None:
            return said.squeeze(2)
        values: Tensor = self.distribution(said)
        return values


class DrQV2Policy(nn.Module):
    """Encoder, actor, critic and critic target of DrQ-v2. ``num_critics=0`` builds the acting path only.

    ``config`` is carried along for whoever built the net and is not looked at.
    """

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        image_channels: int,
        image_height: int,
        image_width: int,
        frame_stack: int,
        state_dim: int,
        action_dim: int,
        encoder_channels: int,
        num_downsample_convs: int,
        num_post_convs: int,
        bottleneck_dim: int,
        hidden_dims: Sequence[int],
        num_critics: int,
        fusion: str = "flatten",
        time_dim: int = 0,
        shared_critic_trunk: bool = False,
        num_atoms: int = 1,
        value_limit: float = 20.0,
        value_transform: bool = True,
        config: Any = None,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, found {fusion!r}")
        self.config = config
        self.cameras = tuple(cameras)
        self.image_shape = (frame_stack * image_channels, image_height, image_width)
        self.state_dim = frame_stack * state_dim
        self.time_dim = time_dim
        self.action_dim = action_dim
        height, width = (conv_output_size(n, num_downsample_convs, num_post_convs) for n in (image_height, image_width))
        if height < 1 or width < 1:
            raise ValueError(f"images of {image_height}x{image_width} are too small for the convolutions")
        head: dict[str, Any] = {
            "visual_dim": (len(self.cameras) if fusion == "flatten" else 1) * encoder_channels * height * width,
            "state_dim": self.state_dim,
            "bottleneck_dim": bottleneck_dim,
            "hidden_dims": tuple(hidden_dims),
        }
        self.encoder = Encoder(
            self.cameras, self.image_shape[0], encoder_channels, num_downsample_convs, num_post_convs, fusion
        )
        self.actor = BottleneckMLP(time_dim=0, extra_dim=0, out_dim=action_dim, **head)
        self.critic: Critic | None = None
        self.critic_target: Critic | None = None
        if num_critics:
            head |= {"shared_trunk": shared_critic_trunk, "num_atoms": num_atoms, "time_dim": time_dim}
            head |= {"limit": value_limit, "transform": value_transform}
            self.critic = Critic(num_critics, extra_dim=action_dim, **head)
            self.critic_target = Critic(num_critics, extra_dim=action_dim, **head)
        self.apply(orthogonal_init)
        if self.critic is not None and self.critic_target is not None:
            self.critic_target.load_state_dict(self.critic.state_dict())
            self.critic_target.requires_grad_(False)

    @property
    def _device(self) -> torch.device:
        return self.actor.head.weight.device

    def images_of(self, observation: Mapping[str, Any]) -> dict[str, Tensor]:
        """The observation's images by camera, as `weightkit.nets.observing.images_by_camera` gives them."""
        return images_by_camera(observation, self.cameras, self.image_shape, self._device)

    def state_of(self, observation: Mapping[str, Any]) -> Tensor | None:
        """The observation's state, ``(B, T*D)`` float32; None for a policy without one."""
        return vector(observation, STATE_KEY, self.state_dim, "T*D", self._device)

    def time_of(self, observation: Mapping[str, Any]) -> Tensor | None:
        """The one-hot time that the critics see, ``(B, L)`` float32; None for critics without one."""
        return vector(observation, TIME_KEY, self.time_dim, "L", self._device)

    def encode(self, observation: Mapping[str, Any]) -> Tensor:
        """Features of the fused views, ``(B, visual)``."""
        features: Tensor = self.encoder(self.images_of(observation))
        return features

    @torch.no_grad()
    def means(self, observation: Mapping[str, Any]) -> Tensor:
        """The means of the action before the tanh: ``(B, A)``."""
        means: Tensor = self.actor(self.encode(observation), self.state_of(observation))
        return means

    @torch.no_grad()
    def act(self, observation: Mapping[str, Any]) -> Tensor:
        """The deterministic action, tanh of the mean: ``(B, A)`` in (-1, 1)."""
        return torch.tanh(self.means(observation))

    @torch.no_grad()
    def q_values(self, observation: Mapping[str, Any], action: Any) -> Tensor:
        """The critics' values of ``action (B, A)``: ``(num_critics, B)``, a distributional critic's expectation.

        Raises ValueError without a critic.
        """
        return self._values(self.critic, observation, action)

    @torch.no_grad()
    def target_q_values(self, observation: Mapping[str, Any], action: Any) -> Tensor:
        """The critic targets' value of ``action (B, A)``: ``(num_critics, B)``."""
        return self._values(self.critic_target, observation, action)

    def _values(self, critic: Critic | None, observation: Mapping[str, Any], action: Any) -> Tensor:
        if critic is None:
            raise ValueError("this policy has no critic: the file it came from holds the acting path only")
        features = self.encode(observation)
        action = torch.as_tensor(action).to(features)
        if action.shape != (features.shape[0], self.action_dim):
            raise ValueError(f"action: expected (B, {self.action_dim}), found {tuple(action.shape)}")
        values: Tensor = critic(features, self.state_of(observation), action, self.time_of(observation))
        return values
