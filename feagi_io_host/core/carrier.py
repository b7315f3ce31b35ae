# SPDX-License-Identifier: Apache-2.0
"""What a transport and the PNS promise each other, whichever paradigm the transport belongs to.

A transport asks its host to attach each agent that it speaks for and gets an AttachedAgent: it
submits what the agent senses, and takes what is meant for the agent from two channels.

The types here are protocols, so that the rooms `blocking` and `nonblocking` need not know each
other and a test or another program can be the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.messages import ConnectionProtocol, PeerAnswer, PeerRefusal
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.telemetry import StreamCounters
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType


class FrameChannel(Protocol):
    """A bounded channel of frames as threads see it. Each entry holds a lease of its own."""

    @property
    def name(self) -> str:
        """For logs and errors."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def put(self, item: SharedFBC, timeout_s: float | None = None) -> None:
        """Hand a frame over; it is the channel's from the call on, also when this raises.

        Raises DeliveryTimeoutError at a full blocking channel, ClosedError at a closed one.
        """

    def try_put(self, item: SharedFBC) -> bool:
        """Hand a frame over if there is room; only with False it stays the caller's."""

    def get(self, timeout_s: float | None = None) -> SharedFBC | None:
        """Take the oldest frame; None when `timeout_s` passed first, ClosedError when closed."""

    def close(self) -> None:
        """Close for good: frames left are dropped, everybody waiting gets ClosedError."""

    def drops_by_reason(self) -> dict[str, int]:
        """Frames dropped so far, by reason."""

    def __len__(self) -> int:
        """Frames waiting now."""


class ChannelMaker(Protocol):
    """Makes the channel for one outbound stream of one agent."""

    def __call__(
        self, rule: DeliveryRule, *, on_drop: Callable[[SharedFBC], object], name: str
    ) -> FrameChannel:
        """A channel as `rule` wants it; `on_drop` takes over the lease of a dropped frame."""


class AttachedAgent(Protocol):
    """One agent as long as it is attached; see `feagi_io_host.blocking.session`."""

    @property
    def agent_id(self) -> bytes:
        """48 bytes."""

    @property
    def descriptor(self) -> AgentDescriptor:
        """Who it says it is."""

    @property
    def capabilities(self) -> AgentCapabilities:
        """What it asked for."""

    @property
    def counters(self) -> Mapping[StreamType, StreamCounters]:
        """What happened to its frames, per data stream."""

    @property
    def motor(self) -> FrameChannel:
        """Motor frames for the agent, in order."""

    @property
    def visualization(self) -> FrameChannel:
        """The newest visualization frame for the agent."""

    @property
    def closed(self) -> bool:
        """Whether it was detached, by either side."""

    def submit_sensory(self, fbc: SharedFBC) -> None:
        """Hand a sensory frame to the brain. Never waits; the caller keeps its own lease."""

    def offer_motor(self, fbc: SharedFBC) -> bool:
        """Queue a motor frame if there is room; the caller keeps its own lease."""

    def press_motor(self, fbc: SharedFBC) -> bool:
        """Queue a motor frame, waiting for room up to the stream's deadline."""

    def show(self, fbc: SharedFBC) -> None:
        """Put a visualization frame in the place of the one before. Never waits."""

    def carried_elsewhere(self, stream: StreamType) -> None:
        """Another transport than the one that let the agent in carries this stream of it."""

    def sent_to_wire(self, stream: StreamType, fbc: SharedFBC) -> None:
        """The carrier has handed a frame of `motor` or `visualization` to its wire just now."""

    def narrow_motor(self, areas: Iterable[CorticalID] | None) -> None:
        """From here on only motor frames with one of these areas (None: all) are for the agent,
        and such without any area."""

    def close(self, reason: str = ...) -> None:
        """Detach the agent. Does nothing the second time."""


class AgentHost(Protocol):
    """Where a transport attaches its agents: the PNS."""

    def attach_agent(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
        *,
        motor_areas: Iterable[CorticalID] | None = None,
        channel: ChannelMaker,
    ) -> AttachedAgent:
        """Let an agent in. Without `agent_id` it gets a random one; an id that is attached
        already takes over, and its old session is closed. `channel` is called for motor and for
        visualization: the transport's own kind of channel, or that of who carries the stream."""


class StreamCarrier(Protocol):
    """Carries single streams of agents that another transport has let in.

    The transport with the control channel calls, for each agent and stream it does not carry
    itself: `offer` when the agent asks to be let in, then either `withdraw`, or `attach_agent` of
    its host with `channel` for the stream, and `serve`. Thread-safe; nothing here waits for a peer.
    """

    @property
    def protocol(self) -> ConnectionProtocol:
        """What it speaks. Agents that ask for another protocol get their streams elsewhere, unless
        it is ZMQ, which every agent can do."""

    @property
    def channel(self) -> ChannelMaker:
        """Makes the outbound channels that this carrier drains."""

    def offer(self, agent_id: bytes, capability: AgentCapabilities) -> str | None:
        """A URL for one stream of one agent; None when there is none to be had."""

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None:
        """Take back what `offer` gave and `serve` was not called for; nothing if there is none."""

    def serve(self, agent: AttachedAgent, stream: StreamType) -> None:
        """Carry what was offered until the agent is closed. Raises ClosedError when the carrier
        does not run, LocalError when the system has nothing left to do it with."""


@runtime_checkable
class PeerCarrier(StreamCarrier, Protocol):
    """A carrier whose connections the two ends agree on over the control channel."""

    def negotiate(
        self,
        agent_id: bytes,
        offer: str,
        answer: Callable[[PeerAnswer | PeerRefusal], object],
    ) -> None:
        """Take an agent's offer, for all streams of it that are carried here. `answer` is called
        once, from any thread, when there is one; it does not wait."""
