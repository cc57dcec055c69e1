"""The replay buffer: every frame once, stacks and returns as from whole episodes, bounded, uniform."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightkit.errors import ConfigError, WeightkitError
from weightkit_runners.config import ReplayConfig, UpdateConfig
from weightkit_runners.replay.base import ReplaySource
from weightkit_runners.replay.buffer import ReplayBuffer
from weightkit_runners.replay.memory import ReplayMemory
from weightkit_runners.replay.prefetch import Prefetched
from weightkit_runners.replay.process import ReplayProcess
from weightkit_runners.transitions import Transition, TransitionSpec, make_transition

IMAGE, STATE = "observation.images.front", "observation.state"
GAMMA = 0.5


def spec(frame_stack: int = 3) -> TransitionSpec:
    frame = {IMAGE: (np.dtype(np.uint8), (1, 2, 2)), STATE: (np.dtype(np.float32), (1,))}
    return TransitionSpec(frame, action_dim=1, frame_stack=frame_stack)


def frame(number: int) -> dict[str, Any]:
    """A frame that says which it is."""
    return {IMAGE: np.full((1, 2, 2), number % 256, np.uint8), STATE: np.array([number], np.float32)}


@dataclass(frozen=True)
class Told:
    """A transition as an episode has it: numbers of the frames of both stacks, the return and what follows."""

    now: tuple[int, ...]
    then: tuple[int, ...]
    action: int
    reward: float
    discount: float


class Story:
    """Episodes of several streams, and what must come out of a buffer that saw all of them."""

    def __init__(self, frame_stack: int, nstep: int) -> None:
        self.frame_stack, self.nstep = frame_stack, nstep
        self.frames = 0

    def episode(self, length: int, number: int, *, terminated: bool) -> tuple[list[Transition], list[Told]]:
        numbers = list(range(self.frames, self.frames + length + 1))
        self.frames += length + 1
        transitions = [
            make_transition(
                frame(numbers[step]), np.array([numbers[step + 1]], np.float32), float(numbers[step + 1] % 7),
                frame(numbers[step + 1]), episode=number, step=step,
                terminated=terminated and step == length - 1, truncated=not terminated and step == length - 1,
            )
            for step in range(length)
        ]  # fmt: skip
        return transitions, [self._told(numbers, step, terminated=terminated) for step in range(length)]

    def _told(self, numbers: list[int], step: int, *, terminated: bool) -> Told:
        last = min(step + self.nstep, len(numbers) - 1)
        reward = sum(GAMMA ** (k - step - 1) * (numbers[k] % 7) for k in range(step + 1, last + 1))
        ended = terminated and last == len(numbers) - 1
        return Told(
            self._stack(numbers, step), self._stack(numbers, last), numbers[step + 1], reward,
            0.0 if ended else GAMMA ** (last - step),
        )  # fmt: skip

    def _stack(self, numbers: list[int], at: int) -> tuple[int, ...]:
        return tuple(numbers[max(0, at - back)] for back in range(self.frame_stack - 1, -1, -1))


def drawn(buffer: ReplayBuffer, count: int) -> list[Told]:
    batch = buffer.sample(count, np.random.default_rng(0))
    assert batch[IMAGE].dtype == torch.uint8
    told = []
    for row in range(count):
        now, then = (tuple(int(x) for x in batch[key][row]) for key in (STATE, f"next.{STATE}"))
        assert batch[IMAGE][row, :, 0, 0].tolist() == [number % 256 for number in now]
        assert batch[f"next.{IMAGE}"][row, :, 1, 1].tolist() == [number % 256 for number in then]
        numbers = (float(batch[key][row]) for key in ("action", "reward", "discount"))
        action, reward, discount = numbers
        told.append(Told(now, then, int(action), reward, discount))
    return told


episodes = st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(0, 2)), min_size=1, max_size=12)


@settings(max_examples=60)
@given(episodes=episodes, frame_stack=st.integers(1, 4), nstep=st.integers(1, 4), turn=st.integers(1, 5))
def test_what_is_drawn_is_what_whole_episodes_say(
    episodes: list[tuple[int, bool, int]], frame_stack: int, nstep: int, turn: int
) -> None:
    """Streams come interleaved, in pieces; stacks, returns and discounts are still those of their own episodes."""
    story, wanted = Story(frame_stack, nstep), set()
    buffer = ReplayBuffer(spec(frame_stack), 4000, nstep=nstep, discount=GAMMA)
    waiting: dict[str, list[Transition]] = {}
    for number, (length, terminated, stream) in enumerate(episodes):
        transitions, told = story.episode(length, number, terminated=terminated)
        waiting.setdefault(f"a{stream}", []).extend(transitions)
        wanted.update(told)
    count = sum(map(len, waiting.values()))
    while any(waiting.values()):
        for stream, left in waiting.items():
            buffer.add(stream, left[:turn])
            waiting[stream] = left[turn:]
    assert len(buffer) == buffer.added == count
    assert set(drawn(buffer, 40 * count + 100)) == wanted


@settings(max_examples=60)
@given(episodes=episodes, frame_stack=st.integers(1, 4), nstep=st.integers(1, 4), capacity=st.integers(2, 40))
def test_a_full_buffer_gives_only_what_is_whole(
    episodes: list[tuple[int, bool, int]], frame_stack: int, nstep: int, capacity: int
) -> None:
    """Frames go, oldest first; no stack ever holds a frame of another episode, and the count is exact."""
    story, told_all, order = Story(frame_stack, nstep), {}, []
    buffer = ReplayBuffer(spec(frame_stack), capacity, nstep=nstep, discount=GAMMA)
    for number, (length, terminated, stream) in enumerate(episodes):
        transitions, told = story.episode(length, number, terminated=terminated)
        buffer.add(f"a{stream}", transitions)
        told_all |= {each.action: each for each in told}
        order += [each.action - 1 for each in told[:1]] + [each.action for each in told]
    there = set(order[-capacity:])
    wanted = {told for told in told_all.values() if set(told.now) <= there and told.action in there}
    assert len(buffer) == len(wanted)
    if wanted:
        assert set(drawn(buffer, 60 * len(wanted) + 100)) == wanted
    else:
        with pytest.raises(ValueError, match="empty"):
            buffer.sample(1, np.random.default_rng(0))


def test_a_transition_after_a_gap_is_drawn_when_its_stack_is_whole_again() -> None:
    transitions, told = Story(3, 1).episode(9, 0, terminated=True)
    buffer = ReplayBuffer(spec(3), 100, discount=GAMMA)
    buffer.add("a", transitions[:2])
    buffer.add("a", transitions[4:])  # two were lost on the way
    assert set(drawn(buffer, 300)) == {*told[:2], *told[7:]}


def test_every_transition_is_equally_likely() -> None:
    transitions, _ = Story(3, 3).episode(20, 0, terminated=True)
    buffer = ReplayBuffer(spec(3), 1000)
    buffer.add("a", transitions)
    counts = np.bincount([told.action for told in drawn(buffer, 8000)])[1:]
    expected = 8000 / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8, "chi squared, 19 degrees of freedom, 1 in 1000"


def test_frames_are_stored_once() -> None:
    shape = (3, 84, 84)
    one = TransitionSpec({IMAGE: (np.dtype(np.uint8), shape)}, action_dim=4, frame_stack=3)
    assert ReplayBuffer(one, 1000).nbytes < 1.01 * 1000 * np.prod(shape)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"reward": np.zeros(3, np.float32)}, "reward"),
        ({"extra": np.zeros(3)}, "extra"),
        ({"action": np.array([np.nan], np.float32)}, "NaN"),
        ({"step": np.asarray(-1, np.int64)}, "observation"),
    ],
)
def test_a_transition_of_another_kind_is_refused_by_name(change: dict[str, Any], what: str) -> None:
    (transition,), _ = Story(3, 1).episode(1, 0, terminated=True)
    spec().check(transition)
    with pytest.raises(ValueError, match=what):
        spec().check({**transition, **change})


# ---- the two buffers of a run, wherever they are


def update(**changes: Any) -> UpdateConfig:
    values: dict[str, Any] = {
        "batch_size": 8, "actor_lr": 0.0, "critic_lr": 0.0, "encoder_lr": 0.0, "nstep": 2, "discount": GAMMA,
        "target_update_weight": 0.0, "utd_ratio": 2, "policy_update_freq": 1, "grad_clip_norm": 0.0,
        "use_augmentation": False, "temperature_init": 1.0, "temperature_lr": 0.0, "num_subsample_critics": None,
        "target_entropy": None, "use_backup_entropy": True,
    }  # fmt: skip
    return UpdateConfig(**{**values, **changes})


def kept(**changes: Any) -> ReplayConfig:
    values: dict[str, Any] = {
        "online_capacity": 500, "offline_capacity": 300, "memory_gb": 1.0, "storage_device": "cpu",
        "async_prefetch": False, "in_process": False, "demonstrations": None,
    }  # fmt: skip
    return ReplayConfig(**{**values, **changes})


def memory(**changes: Any) -> ReplayMemory:
    return ReplayMemory(spec(), update(), kept(**changes), seed=3, where="train_config.json")


MAKE: dict[str, Callable[[], ReplaySource]] = {
    "memory": memory,
    "prefetched": lambda: Prefetched(memory()),
    "process": lambda: ReplayProcess(spec(), update(), kept(), seed=3, where="train_config.json"),
}


@pytest.fixture(params=list(MAKE))
def source(request: pytest.FixtureRequest) -> Iterator[ReplaySource]:
    made = MAKE[request.param]()
    yield made
    made.close()


def acted(story: Story, length: int, number: int, *, by_person: Sequence[int] = ()) -> list[Transition]:
    transitions, _ = story.episode(length, number, terminated=True)
    return [{**t, "intervention": np.asarray(step in by_person)} for step, t in enumerate(transitions)]


def actions(batch: Any) -> list[int]:
    return [int(x) for x in batch["action"]]


def test_wherever_it_is_the_same_batches_come_out(source: ReplaySource) -> None:
    reference, story = memory(), Story(3, 2)
    first, second = acted(story, 30, 0), acted(story, 30, 1, by_person=(4, 5, 6))
    for each in (source, reference):
        each.add("a", first)
        each.add("b", second)
    for step in (0, 1, 2, 7, 8):
        ours, theirs = source.batches(step), reference.batches(step)
        assert len(ours) == len(theirs) == 2
        for one, other in zip(ours, theirs, strict=True):
            assert set(one) == set(other)
            assert all(torch.equal(one[key], other[key]) for key in one)
    assert source.counts() == reference.counts()


def test_a_batch_is_half_a_persons_as_soon_as_one_took_over(source: ReplaySource) -> None:
    story = Story(3, 2)
    source.add("a", acted(story, 40, 0))
    assert source.counts().offline == 0
    people = range(41 + 11, 41 + 14)  # an episode of 40 has frames 0 to 40; an action is named by where it led
    source.add("a", acted(story, 30, 1, by_person=(10, 11, 12)))
    counts = source.counts()
    assert (counts.online, counts.offline, counts.added, counts.interventions) == (70, 3, 70, 3)
    source.batches(0)
    for batch in source.batches(5):
        assert set(actions(batch)[4:]) <= set(people), "the second half is the offline buffer's"
        assert len(actions(batch)) == 8


def test_demonstrations_fill_the_offline_buffer_alone(source: ReplaySource) -> None:
    source.demonstrate("d", acted(Story(3, 2), 12, 0))
    counts = source.counts()
    assert (counts.online, counts.offline, counts.added) == (0, 12, 0)


def test_batches_of_a_step_are_the_same_whatever_was_asked_before(source: ReplaySource) -> None:
    source.add("a", acted(Story(3, 2), 30, 0))
    source.batches(0)
    again = [actions(batch) for batch in source.batches(7)]
    source.batches(3)
    assert [actions(batch) for batch in source.batches(7)] == again


def test_drawing_from_nothing_is_refused(source: ReplaySource) -> None:
    with pytest.raises(ValueError, match="empty"):
        source.batches(0)


def test_context_of_a_person_who_takes_over_in_the_middle_is_whole() -> None:
    story = Story(3, 2)
    both = memory()
    transitions, told = story.episode(20, 0, terminated=True)
    both.add("a", [{**t, "intervention": np.asarray(step in (8, 12))} for step, t in enumerate(transitions)])
    found = set(drawn(both.offline, 200))
    assert {each.now for each in found} == {told[8].now, told[12].now}
    assert {each.action for each in found} == {told[8].action, told[12].action}


def test_memory_bounds_both_buffers_in_their_proportion() -> None:
    frame_bytes = spec().frame_bytes
    small = memory(online_capacity=3000, offline_capacity=1000, memory_gb=400 * frame_bytes / (1 << 30))
    assert (small.online.capacity, small.offline.capacity) == (300, 100)
    with pytest.raises(ConfigError, match="replay_memory_gb"):
        memory(memory_gb=frame_bytes / (1 << 30))


@pytest.mark.parametrize("make", [memory, lambda **c: ReplayProcess(spec(), update(), kept(**c), seed=0, where="c")])
def test_a_storage_device_that_is_not_there_is_refused_by_its_key(make: Any) -> None:
    device = "cuda" if not torch.cuda.is_available() else "cuda:99"
    with pytest.raises(ConfigError, match=r"policy\.storage_device.*cuda"):
        make(storage_device=device)


def test_a_replay_process_that_died_is_named_with_what_to_do() -> None:
    process = ReplayProcess(spec(), update(), kept(), seed=0, where="c")
    process._there.process.kill()
    with pytest.raises(WeightkitError, match=r"has ended.*-9") as refused:
        process.counts()
    assert "replay_memory_gb" in str(refused.value.hint)
    process.close()


def test_what_goes_wrong_with_transitions_is_said_once_and_later_answers_are_still_their_own() -> None:
    process = ReplayProcess(spec(), update(), kept(), seed=0, where="c")
    try:
        good = acted(Story(3, 2), 9, 0)
        process.add("a", [{key: value for key, value in good[0].items() if key != "reward"}])
        process.add("a", good)
        with pytest.raises(WeightkitError, match="reward"):
            process.counts()
        assert process.counts().online == 9
        assert len(process.batches(0)) == 2
    finally:
        process.close()
