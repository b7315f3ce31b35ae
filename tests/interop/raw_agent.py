# SPDX-License-Identifier: Apache-2.0
"""An agent without any of our transports: bare sockets, our codec.

What it says is written out by hand from docs/real-engine.md, so that a test with it shows what the
engine does and not what our agent makes of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zmq

from feagi_io_host.core.container import FeagiByteContainer, FeagiJSON
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays

INFRARED = CorticalID.try_from_bytes(b"iinf\x01\x00\x00\x00")
ROTARY_MOTOR = CorticalID.try_from_bytes(b"omot\x05\x00\x00\x00")
CAPABILITIES = ("send_sensor_data", "receive_motor_data", "receive_neuron_visualizations")
DEADLINE_S = 5.0

Voxels = list[tuple[int, int, int, float]]

_DEVICES = Path(__file__).resolve().parents[1] / "vectors" / "device_registrations.json"


def infrared_and_rotary_motor() -> dict[str, Any]:
    """The configuration of both, each as the real client wrote it."""
    devices = json.loads(_DEVICES.read_text(encoding="utf-8"))
    sensor = devices["sensor_Infrared_register group=0 absolute linear"]["registration"]
    motor = devices["motor_rotary_motor_register group=0 absolute linear"]["registration"]
    outputs = "output_units_and_decoder_properties"
    return {
        "agent_configuration": {"AgentConfigurationDetails": sensor | {outputs: motor[outputs]}}
    }


def registration(name: str = "raw") -> dict[str, Any]:
    """A request for all three streams over ZMQ."""
    request = {
        "agent_descriptor": {"agent_name": name, "agent_version": 1, "manufacturer": "feagi-io"},
        "api_version": {"version": 1},
        "auth_token": {"value": [0] * 32},
        "connection_protocol": "Zmq",
        "requested_capabilities": list(CAPABILITIES),
    }
    return {"agent_registration": {"client_request_registration": request}}


def deregistration() -> dict[str, Any]:
    """The request that ends a registration."""
    return {"agent_registration": {"client_request_deregistration": {"reason": "test"}}}


class RawAgent:
    """One control connection, and the three streams after `register`."""

    def __init__(self, url: str) -> None:
        self._context = zmq.Context()
        self._control = self._socket(zmq.DEALER, url)
        self.agent_id = bytes(48)

    def ask(self, message: object) -> Any:
        """Send one control message; the value of the answer."""
        self.tell(message)
        return self.hear()

    def tell(self, message: object) -> None:
        """Send one control message."""
        container = FeagiByteContainer()
        container.overwrite_byte_data_with_single_struct_data(FeagiJSON(message), 0)
        container.set_agent_identifier(self.agent_id)
        self._control.send_multipart([b"", container.copy_out_as_byte_vector()])

    def hear(self) -> Any:
        """The value of the next answer. Raises zmq.Again after the deadline."""
        delimiter, data = self._control.recv_multipart()
        assert delimiter == b""
        answer = FeagiByteContainer()
        answer.try_write_data_by_copy_and_verify(data)
        self.agent_id = answer.get_agent_identifier_bytes()
        struct = answer.try_create_new_struct_from_index(0)
        assert isinstance(struct, FeagiJSON)
        return struct.value

    def register(self) -> dict[str, str]:
        """Register and connect the streams; the URLs by capability."""
        answer = self.ask(registration())
        success = answer["agent_registration"]["server_responds_registration"]["success"]
        urls = {name: success[1][name]["Zmq"]["url"] for name in CAPABILITIES}
        self.sensory = self._socket(zmq.PUSH, urls["send_sensor_data"])
        self.motor = self._socket(zmq.SUB, urls["receive_motor_data"])
        self.visualization = self._socket(zmq.SUB, urls["receive_neuron_visualizations"])
        return urls

    def sense(self, *voxels: tuple[int, int, int, float]) -> None:
        """Send one complete state of the infrared sensor."""
        columns = np.array(voxels, np.float64).reshape(-1, 4).T
        arrays = NeuronVoxelXYZPArrays.new_from_numpy(
            *(columns[i].astype(np.uint32) for i in range(3)), columns[3].astype(np.float32)
        )
        container = FeagiByteContainer()
        container.overwrite_byte_data_with_single_struct_data(
            CorticalMappedXYZPNeuronVoxels({INFRARED: arrays}), 0
        )
        self.sensory.send(container.copy_out_as_byte_vector())

    def frames(self, socket: zmq.Socket[bytes]) -> Iterator[dict[CorticalID, Voxels]]:
        """The frames of a stream as they come; ends when the deadline for all of them is over."""
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            container = FeagiByteContainer()
            container.try_write_data_by_copy_and_verify(socket.recv())
            struct = container.try_create_new_struct_from_index(0)
            assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
            yield {
                area: list(
                    zip(*(part.tolist() for part in arrays.borrow_xyzp_vectors()), strict=True)
                )
                for area, arrays in struct
            }

    def close(self) -> None:
        """Close everything; nothing unsent is waited for."""
        self._context.destroy(linger=0)

    def __enter__(self) -> RawAgent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _socket(self, kind: int, url: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.rcvtimeo = socket.sndtimeo = int(DEADLINE_S * 1000)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(url)
        return socket
