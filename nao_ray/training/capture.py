"""A function of tensors in one CUDA graph: recorded once, then replayed without its thousands of launches.

A training step of a child is 2,000 to 3,000 short kernels, and launching them from Python takes longer than they run.
The first calls are made as they are, on a side stream (libraries make their handles, workspaces and choices then, which
they must not within a recording); the next one is recorded and replayed, and so is every later one whose inputs have
the shapes of the first. Others, as the last batch of an epoch, run as they are; where many shapes are usual, as the
lengths of a text's segments are, those that are seen again first have a graph each. What a recorded function is to see
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
WARM_AGAIN = 1
"""Those of each later shape: libraries choose, and load, kernels for it."""
LENGTHS = 24
"""Graphs of a text's steps: of lengths drawn about a window of 35 that is 91 of 100 steps or more from the second epoch
on, and 32 would be 97. Each holds its thousands of launches in the driver's memory; the tensors' is shared."""


class Recorder(Protocol):
    """What a device offers."""

    def warm(self, run: Callable[[], Output]) -> Output:
        """Call where recordings are made."""

    def record(self, run: Callable[[], Output]) -> tuple[Callable[[], None], Output]:
        """A function that does again what `run` does, and the tensors that it then writes; does nothing yet.

        Raises:
            RuntimeError: something in `run` cannot be recorded.
        """

    def forget(self) -> None:
        """Free what was recorded."""

    def close(self) -> None:
        """The same, for good."""


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
        self._recorded = 0  # steps
        self._steps = self._replayed = 0  # of functions whose shapes are several
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
        """How the steps were run: `graph`, `eager`, or `eager: ` and why, in one line.

        Where shapes are several `graph: ` is followed by how many of the calls were of a shape that has one.
        """
        if self._why is not None:
            return f"eager: {self._why}" if self._why else "eager"
        if not self._recorded:
            return f"eager: fewer than {WARM_UP + 1} steps" + (" of a length" if self._steps > WARM_UP else "")
        return f"graph: {self._replayed} of {self._steps} steps" if self._steps else "graph"

    def of(self, function: Callable[..., Output], shapes: int = 1, *, is_step: bool = True) -> Callable[..., Output]:
        """The function, recorded at its fourth call; its inputs are tensors, its outputs new ones at each call.

        Args:
            function: what is recorded.
            shapes: that may have a graph; 1: the first alone.
            is_step: `execution` tells of it.
        """
        return _Captured(self, function, shapes, is_step) if self.is_on else function

    def warm(self, run: Callable[[], Output]) -> Output:
        """One of the first calls."""
        with in_graph():
            return run() if self._recorder is None else self._recorder.warm(run)

    def record(self, run: Callable[[], Output], *, is_step: bool) -> tuple[Callable[[], None], Output] | None:
        """As `Recorder.record`, of a step or not; None: it failed, and nothing will be recorded any more.

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
        self._recorded += is_step
        return recorded

    def _give_up(self, error: BaseException) -> None:
        global _spoilt
        _spoilt = True
        self._recorder = None
        text = " ".join(str(error).split())
        self._why = f"{type(error).__name__}: {text}"[:200]
        _log.warning("the step could not be recorded and runs eagerly, which is slower: %s", self._why)

    def count(self, *, replayed: bool) -> None:
        """A call of a function whose shapes are several."""
        self._steps += 1
        self._replayed += replayed

    def forget(self) -> None:
        """Free the graphs, when their functions are called no more; others may be recorded."""
        if self._recorder is not None:
            self._recorder.forget()

    def close(self) -> None:
        """Free the graphs, when their functions are called no more."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Graph(Generic[Output]):
    """What was recorded for inputs of some shapes."""

    def __init__(self, inputs: Sequence[Tensor], recorded: tuple[Callable[[], None], Output]) -> None:
        self._inputs = inputs
        self._replay, self._outputs = recorded

    def __call__(self, *inputs: Tensor) -> Output:
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._replay()
        if isinstance(self._outputs, tuple):
            return cast(Output, tuple(tensor.clone() for tensor in self._outputs))
        return cast(Output, self._outputs.clone())


Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class _Captured(Generic[Output]):
    """One function; see `Capture.of`."""

    def __init__(self, capture: Capture, function: Callable[..., Output], most: int, is_step: bool) -> None:
        self._capture, self._function, self._most, self._is_step = capture, function, most, is_step
        self._calls: dict[Shapes, int] = {}  # of those that may have a graph
        self._graphs: dict[Shapes, _Graph[Output]] = {}

    def __call__(self, *inputs: Tensor) -> Output:
        if not self._capture.is_on:
            return self._function(*inputs)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        graph = self._graphs.get(shapes) or self._new(shapes, inputs)
        if self._most > 1:
            self._capture.count(replayed=graph is not None)
        if graph is not None:
            return graph(*inputs)
        if self._is_left_out(shapes) or not self._capture.is_on:
            return self._function(*inputs)
        return self._capture.warm(lambda: self._function(*inputs))

    def _is_left_out(self, shapes: Shapes) -> bool:
        """Whether inputs of these will not have a graph."""
        return len(self._graphs) == self._most or (self._most == 1 and shapes not in self._calls)

    def _new(self, shapes: Shapes, inputs: Sequence[Tensor]) -> _Graph[Output] | None:
        """The graph of these, where it is time for it."""
        if not self._calls or self._most > 1:
            self._calls.setdefault(shapes, 0)
        if self._is_left_out(shapes):
            return None
        self._calls[shapes] += 1
        if self._calls[shapes] <= (WARM_AGAIN if self._graphs else WARM_UP):
            return None
        mine = [tensor.clone() for tensor in inputs]
        recorded = self._capture.record(lambda: self._function(*mine), is_step=self._is_step)
        if recorded is not None:
            self._graphs[shapes] = _Graph(mine, recorded)
        return self._graphs.get(shapes)


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

    def forget(self) -> None:
        torch.cuda.current_stream(self._device).synchronize()
        for graph in self._graphs:
            graph.reset()
        self._graphs.clear()

    def close(self) -> None:
        self.forget()
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
