"""A function of tensors in one CUDA graph: recorded once, then replayed without its thousands of launches.

A training step of a child is 2,000 to 3,000 short kernels, and launching them from Python takes longer than they run.
The first calls are made as they are, on a side stream (libraries make their handles, workspaces and choices then, which
they must not within a recording); the next one is recorded and replayed, and so is every later one whose inputs have
the shapes of the first. Others, as the last batch of an epoch, run as they are. What a recorded function is to see
changing must be a tensor that is written in place: a Python number is frozen.

What is known to go wrong, and what is done about it:

- A graph that ends drops the cuBLAS workspaces of the stream that it was recorded on, those of other graphs too
  (pytorch#193402): all graphs of a `Capture` are recorded on one stream, which no other `Capture` has until they have
  all ended.
- A recording that fails keeps its memory for ever (pytorch#190348), and leaves the generators of random numbers as if
  it went on: they are put back, nothing is recorded in the process again, and `is_spoilt` says that another process
  would do better.
- Each graph's memory is a pool of its own, which the next graph cannot use: all graphs of a process share one, kept by
  a graph of nothing.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor

from nao_ray.networks.fast import in_graph

_log = logging.getLogger(__name__)

Output = TypeVar("Output", bound=Tensor | tuple[Tensor, ...])
Execution = Literal["auto", "eager", "graph"]
"""`auto`: in a graph where the device has them, as it is where that fails; `graph`: or not at all."""

WARM_UP = 3
"""Calls before the recording: an optimiser makes its state at the first, cuDNN and cuBLAS theirs at the first two."""


class Recorder(Protocol):
    """What a device offers."""

    def warm(self, run: Callable[[], Output]) -> Output:
        """Call where recordings are made."""

    def record(self, run: Callable[[], Output]) -> tuple[Callable[[], None], Output]:
        """A function that does again what `run` does, and the tensors that it then writes; does nothing yet.

        Raises:
            RuntimeError: something in `run` cannot be recorded.
        """

    def close(self) -> None:
        """Forget what was recorded."""


class Capture:
    """Functions of one training, each in a graph of its own.

    Args:
        device: that they compute on.
        generators: of random numbers that they draw from, besides torch's own.
        execution: whether to use graphs.
        recorder: of the device; None: CUDA's, or there is none.

    Raises:
        RuntimeError: `execution` is `graph`, and the device has none.
    """

    def __init__(
        self,
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        *,
        execution: Execution = "auto",
        recorder: Recorder | None = None,
    ) -> None:
        self._must = execution == "graph"
        self._why = self._reason(device, execution) if recorder is None else None
        self._recorder = recorder
        self._recorded = 0
        if self._why is None and recorder is None:
            self._recorder = _CudaRecorder(device, generators)
        if self._must and self._why is not None:
            raise RuntimeError(f"execution is graph, and nothing can be recorded: {self._why or 'it takes CUDA'}")

    @staticmethod
    def _reason(device: torch.device, execution: Execution) -> str | None:
        if device.type != "cuda" or execution == "eager":
            return ""
        return "an earlier recording failed in this process" if _spoilt else None

    @property
    def is_on(self) -> bool:
        """Whether functions are recorded, or will be."""
        return self._why is None

    @property
    def execution(self) -> str:
        """How the functions were run: `graph`, `eager`, or `eager: ` and why, in one line."""
        if self._why is None:
            return "graph" if self._recorded else f"eager: fewer than {WARM_UP + 1} steps"
        return f"eager: {self._why}" if self._why else "eager"

    def of(self, function: Callable[..., Output]) -> Callable[..., Output]:
        """The function, recorded at its fourth call; its inputs are tensors, its outputs new ones at each call."""
        return _Captured(self, function) if self.is_on else function

    def warm(self, run: Callable[[], Output]) -> Output:
        """One of the first calls."""
        with in_graph():
            return run() if self._recorder is None else self._recorder.warm(run)

    def record(self, run: Callable[[], Output]) -> tuple[Callable[[], None], Output] | None:
        """As `Recorder.record`; None: it failed, and nothing will be recorded any more.

        Raises:
            OutOfMemoryError: the device's memory does not hold the recording.
            RuntimeError: it failed, and `execution` is `graph`.
        """
        if self._recorder is None:
            return None
        try:
            with in_graph():
                recorded = self._recorder.record(run)
        except RuntimeError as error:
            self._give_up(_root(error))
            if self._must or isinstance(_root(error), torch.OutOfMemoryError):
                raise _root(error) from error
            return None
        self._recorded += 1
        return recorded

    def _give_up(self, error: BaseException) -> None:
        global _spoilt
        _spoilt = True
        self._recorder = None
        text = " ".join(str(error).split())
        self._why = f"{type(error).__name__}: {text}"[:200]
        _log.warning("the step could not be recorded and runs eagerly, which is slower: %s", self._why)

    def close(self) -> None:
        """Free the graphs, when their functions are called no more."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Captured(Generic[Output]):
    """One function; see `Capture.of`."""

    def __init__(self, capture: Capture, function: Callable[..., Output]) -> None:
        self._capture, self._function = capture, function
        self._shapes: list[tuple[torch.Size, torch.dtype]] | None = None
        self._calls = 0
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], None] | None = None
        self._outputs: Output | None = None

    def __call__(self, *inputs: Tensor) -> Output:
        shapes = [(tensor.shape, tensor.dtype) for tensor in inputs]
        self._shapes = self._shapes or shapes
        if shapes != self._shapes or not self._capture.is_on:
            return self._function(*inputs)
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._capture.warm(lambda: self._function(*inputs))
        if self._replay is None:
            self._inputs = [tensor.clone() for tensor in inputs]
            recorded = self._capture.record(lambda: self._function(*self._inputs))
            if recorded is None:
                self._inputs = []
                return self._function(*inputs)
            self._replay, self._outputs = recorded
        else:
            for mine, given in zip(self._inputs, inputs, strict=True):
                mine.copy_(given)
        self._replay()
        assert self._outputs is not None
        if isinstance(self._outputs, tuple):
            return cast(Output, tuple(tensor.clone() for tensor in self._outputs))
        return cast(Output, self._outputs.clone())


def is_spoilt() -> bool:
    """Whether a recording has failed in this process: its memory is lost, and nothing is recorded here any more."""
    return _spoilt


def _root(error: BaseException) -> BaseException:
    """What went wrong first: the end of a recording raises again."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__ or error
    return error


_spoilt = False


# -- CUDA ---------------------------------------------------------------------------------------------------------

_streams: dict[torch.device, list[torch.cuda.Stream]] = {}
"""By device, those that no graph was recorded on."""


class _CudaRecorder:
    """Graphs of one `Capture`, recorded on a stream that is its own."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._generators = generators
        free = _streams.setdefault(self._device, [])
        self._stream = free.pop() if free else _stream(self._device)
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def warm(self, run: Callable[[], Output]) -> Output:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            out = run()
        current.wait_stream(self._stream)
        return out

    def record(self, run: Callable[[], Output]) -> tuple[Callable[[], None], Output]:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with (
            _recording(self._device, self._generators),
            torch.cuda.stream(self._stream),  # left in any case: a recording whose end fails does not
            # only this thread's calls may spoil it: others answer questions meanwhile
            torch.cuda.graph(graph, pool=_pool(self._device), stream=self._stream, capture_error_mode="thread_local"),
        ):
            out = run()
        self._graphs.append(graph)
        return graph.replay, out

    def close(self) -> None:
        torch.cuda.current_stream(self._device).synchronize()
        for graph in self._graphs:
            graph.reset()
        self._graphs.clear()
        _streams[self._device].append(self._stream)


@contextmanager
def _recording(device: torch.device, generators: Sequence[torch.Generator]) -> Iterator[None]:
    """A block in which a recording may fail: generators then go on where they were."""
    drawn = [torch.cuda.default_generators[device.index or 0], *(g for g in generators if g.device.type == "cuda")]
    states = [generator.clone_state() for generator in drawn]
    try:
        yield
    except RuntimeError:
        for generator, state in zip(drawn, states, strict=True):
            generator.graphsafe_set_state(state)
        raise


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@cache
def _pool(device: torch.device) -> Any:  # noqa: ANN401
    """The memory of all graphs of a device in this process: what one has freed is the next one's."""
    handle, keeper = torch.cuda.graph_pool_handle(), torch.cuda.CUDAGraph()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is empty
        with torch.cuda.graph(keeper, pool=handle, stream=_stream(device), capture_error_mode="thread_local"):
            pass
    _keepers.append(keeper)
    return handle


_keepers: list[torch.cuda.CUDAGraph] = []
