# SPDX-License-Identifier: Apache-2.0
"""SensorySender: an agent's sensory frames, from its outbox to its socket, or to a StreamEnd.

As on the server's side (see `publisher`) a frame is sent by the thread that hands it in, as long
as the wire is free: waking the link's thread takes longer than sending.

  1. Every frame goes through the agent's outbox. Who holds `_turn` takes frames out and sends
     them, so that they go in order; a zmq socket may be used by several threads in turns, and so
     may a StreamEnd.
  2. Who hands a frame in never waits, neither for the turn nor for the socket. What it leaves
     behind is the link's, and it wakes the link.
  3. A frame that the server has no room for is `_head` and waits until a newer one takes its
     place. As long as there is one the link alone sends, for it polls the socket.
  4. Memory that the library still sends from is given back by the link, or with the next frame.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import zmq

from feagi_io_host.core.agent_link import LinkParty, StreamEnd
from feagi_io_host.core.errors import ClosedError, FeagiIOError, LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.transports.zmq.client_stream import ClientStream
from feagi_io_host.transports.zmq.common import send_message
from feagi_io_host.transports.zmq.wire_form import Convert

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import BytesLike

_log = logging.getLogger("feagi_io.zmq")


class SensorySender:
    """Sends what `party` has to send; `pack` makes the messages of the frames.

    All but `send_now` is for the link's thread or task.
    """

    def __init__(self, party: LinkParty, pack: Convert | None) -> None:
        self._party = party
        self._pack = pack
        self._turn = threading.Lock()
        # From here on: who holds the turn. The link, which alone puts another way there, may
        # look at all of it.
        self._way: ClientStream | StreamEnd | None = None
        self._gone: FeagiIOError | None = None
        self.end_due_s: float | None = None
        """When the link tends a StreamEnd by itself; who holds the turn sets it."""
        self._head: SharedFBC | None = None
        self._message: BytesLike | None = None  # of the head: packing it once is enough
        self._is_frame = False  # whether the message is the head's own memory
        self._in_flight: deque[tuple[zmq.MessageTracker, SharedFBC]] = deque()

    @property
    def turn(self) -> threading.Lock:
        """To be held by who uses the StreamEnd that frames go to."""
        return self._turn

    @property
    def leads_somewhere(self) -> bool:
        """Whether frames go anywhere."""
        return self._way is not None

    @property
    def stream(self) -> ClientStream | None:
        """The stream of a socket, if frames go there."""
        return self._way if isinstance(self._way, ClientStream) else None

    @property
    def gone(self) -> FeagiIOError | None:
        """Why the StreamEnd that frames went to is of no use any more."""
        return self._gone

    @property
    def waits_for_room(self) -> bool:
        """Whether there is a frame that the socket did not take yet."""
        return self._head is not None

    @property
    def holds_memory(self) -> bool:
        """Whether the library was still sending from memory of ours."""
        return bool(self._in_flight)

    def lead_to(self, way: ClientStream | StreamEnd | None) -> None:
        """Send over this one from here on; the one before is closed, and a frame that waits for
        it is dropped."""
        with self._turn:
            before, self._way = self._way, way
            self._gone = self.end_due_s = None
            if self._head is not None:
                self._message = None
                self._head.release()
                self._head = None
                self._party.sensory_dropped("not registered")
            if before is not None:
                before.close()

    def tend(self, now_s: float) -> bool:
        """As `ClientStream.tend`."""
        with self._turn:
            stream = self.stream
            return False if stream is None else stream.tend(now_s)

    def send(self) -> None:
        """Send what can be sent now."""
        with self._turn:
            self._send()

    def send_now(self) -> bool:
        """The same from any thread, unless somebody else is at it, or frames have to wait or to
        be packed for a socket. False: there is something left for the link."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if self._way is None or self._head is not None:
                return False
            if not isinstance(self._way, ClientStream):
                self._send()
                return not self.waits_for_room and not self._is_due_sooner(self._way)
            if self._pack is not None:
                return False
            # The link looks every few milliseconds as long as there is such memory.
            is_known = bool(self._in_flight)
            self._send()
            return not self.waits_for_room and (is_known or not self._in_flight)
        except zmq.ZMQError:
            return False  # the link meets it as well, and reports it
        finally:
            self._turn.release()

    def give_back_all(self) -> None:
        """Give back what the library was sending from, once it has ended."""
        with self._turn:
            while self._in_flight:
                self._in_flight.popleft()[1].release()

    # -- who holds the turn -------------------------------------------------------------------

    def _send(self) -> None:
        self._give_back_sent()
        if self._way is None:
            return
        if not isinstance(self._way, ClientStream):
            self._send_by(self._way)
            return
        socket = self._way.socket
        while (fbc := self._next()) is not None:
            self._head = fbc
            if self._message is None:
                view = fbc.view
                self._message = view if self._pack is None else self._pack(view)
                self._is_frame = self._message is view
            try:
                tracker = send_message(socket, self._message, zmq.DONTWAIT)
            except zmq.Again:
                return
            self._head = self._message = None
            self._party.sensory_sent()
            if tracker is None or not self._is_frame:
                fbc.release()
            else:
                self._in_flight.append((tracker, fbc))

    def _send_by(self, end: StreamEnd) -> None:
        while self._gone is None and (fbc := self._next()) is not None:
            self._head = fbc
            try:
                if not end.send(fbc):
                    return
            except FeagiIOError as error:
                if not isinstance(error, LocalError) or isinstance(error, ClosedError):
                    self._gone = error  # the link meets it, and drops what waits
                    return
                _log.debug("a sensory frame was dropped: %s", error)
                self._party.sensory_dropped("refused")
            else:
                self._party.sensory_sent()
            self._head = None
            fbc.release()

    def _is_due_sooner(self, end: StreamEnd) -> bool:
        """Whether the link has to look at the end before it would by itself."""
        try:
            due_s = end.tend(time.monotonic())
        except FeagiIOError as error:
            self._gone = error
        if self._gone is not None:
            return True
        return due_s is not None and (self.end_due_s is None or due_s < self.end_due_s)

    def _next(self) -> SharedFBC | None:
        """The next one in order; where one had to wait already, the newest."""
        fbc, self._head = self._head, None
        if fbc is None:
            return self._party.next_sensory()
        while (newer := self._party.next_sensory()) is not None:
            self._message = None
            fbc.release()
            self._party.sensory_dropped("replaced")
            fbc = newer
        return fbc

    def _give_back_sent(self) -> None:
        while self._in_flight and self._in_flight[0][0].done:
            self._in_flight.popleft()[1].release()
