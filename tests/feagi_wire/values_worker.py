# SPDX-License-Identifier: Apache-2.0
"""A process around the real library's value coding: a JSON list of requests in, of answers out.

["gpio" | "imu", resolution, "Linear" | "Fractional", [value, ...]]
    for each value the voxels [x, y, z, potential] that channel 0 of one area is written as
["rotary", resolution, "Linear" | "Fractional", channels, [[[x, z], ...], ...]]
    the values of all channels after each frame of voxels
["count", ...]  the same for an unsigned output
["sense", unit, resolution, "Linear" | "Fractional", channels, dims, [[channel, part, values], ...]]
    by the id of each area, in hex, its voxels once the values of each channel were written
["servo", resolution, "Linear" | "Fractional", channels, [[id in hex, [[x, z], ...]], ...]]
    the positions of all channels after each frame
"""

from __future__ import annotations

import json
import struct
import sys
from typing import Any

import feagi_rust_py_libs as library
import numpy
from feagi_rust_py_libs import connector_core

AREA = library.data_structures.genomic.cortical_area
ABSOLUTE = AREA.FrameChangeHandling.Absolute()
TYPES = connector_core.data_types


def areas_of(data: bytes) -> dict[bytes, list[tuple[float, ...]]]:
    """The voxels of a container with one struct, by cortical id."""
    start = 52 + 4 * data[3]
    found = {}
    for index in range(data[start + 2] | data[start + 3] << 8):
        key, at, size = struct.unpack_from("<8sII", data, start + 4 + 16 * index)
        n = size // 16
        columns = [struct.unpack_from(f"<{n}{kind}", data, start + at + 4 * n * k)
                   for k, kind in enumerate("IIIf")]  # fmt: skip
        found[key] = list(zip(*columns, strict=True))
    return found


def written(kind: str, resolution: int, positioning: str, values: list[float]) -> list[Any]:
    """Voxels for each value."""
    agent = connector_core.ConnectorAgent()
    place = getattr(AREA.PercentageNeuronPositioning, positioning)()
    if kind == "gpio":
        agent.sensor_AnalogGPIO_register(0, 1, ABSOLUTE, resolution, place)
    else:
        agent.sensor_RawIMU_register(0, 1, ABSOLUTE, resolution, place)
    answers = []
    for value in values:
        if kind == "gpio":
            agent.sensor_analog_g_p_i_o_write(0, 0, TYPES.Percentage.new_from_0_1(value))
        else:
            one = TYPES.SignedPercentage.new_from_m1_1(value)
            three = TYPES.SignedPercentage3D(one, one, one)
            agent.sensor_raw_i_m_u_write_accelerometer(0, 0, three)
        agent.sensors_encode_cached_sensor_data_to_bytes()
        areas = areas_of(bytes(agent.sensors_read_bytes()))
        # the accelerometer is the IMU's sub-unit 0; each of its three axes carries the value
        voxels = next(found for key, found in areas.items() if key[4] >> 4 == 0)
        limit = 1 if kind == "gpio" else 2
        answers.append([voxel for voxel in voxels if voxel[0] < limit])
    return answers


def container(key: bytes, voxels: list[tuple[int, int]]) -> bytes:
    """One area of fired voxels."""
    n = len(voxels)
    body = struct.pack("<BBH8sII", 11, 1, 1, key, 20, 16 * n)
    body += struct.pack(f"<{n}I", *(x for x, _ in voxels)) + bytes(4 * n)
    body += struct.pack(f"<{n}I", *(z for _, z in voxels)) + struct.pack(f"<{n}f", *[1.0] * n)
    return bytes([4, 0, 0, 1]) + bytes(48) + struct.pack("<I", len(body)) + body


def number(value: Any) -> float:
    """The value of the library's own type."""
    for name in ("value", "as_float", "get_as_m1_1", "get_as_0_1", "inner_value"):
        if hasattr(value, name):
            found = getattr(value, name)
            return float(found() if callable(found) else found)
    raise TypeError(f"{type(value).__name__} has {[n for n in dir(value) if n[0] != '_']}")


def read(
    kind: str, resolution: int, positioning: str, channels: int, frames: list[Any]
) -> list[Any]:
    """Values after each frame."""
    agent = connector_core.ConnectorAgent()
    place = getattr(AREA.PercentageNeuronPositioning, positioning)()
    fractional = 2 if positioning == "Fractional" else 0
    if kind == "rotary":
        agent.motor_rotary_motor_register(0, channels, ABSOLUTE, resolution, place)
        value_of = agent.motor_rotary_motor_read_preprocessed_cache_value
        key = b"omot\x05" + bytes([fractional, 0, 0])
    else:
        agent.motor_count_output_register(0, channels, ABSOLUTE, resolution, place)
        value_of = agent.motor_count_output_read_preprocessed_cache_value
        key = b"ocnt\x01" + bytes([fractional, 0, 0])
    answers = []
    for voxels in frames:
        agent.motors_load_in_bytes_and_verify(container(key, voxels))
        agent.motors_decode_cached_byte_data_to_motor()
        answers.append([number(value_of(0, channel)) for channel in range(channels)])
    return answers


def signed(values: list[float]) -> list[Any]:
    return [TYPES.SignedPercentage.new_from_m1_1(value) for value in values]


def sensed(
    _: str, unit: str, resolution: int, positioning: str, channels: int, dims: Any, writes: Any
) -> dict[str, Any]:
    """Every area of a unit."""
    agent = connector_core.ConnectorAgent()
    place = getattr(AREA.PercentageNeuronPositioning, positioning)()
    size = (0, channels, ABSOLUTE, resolution, place)
    if unit == "idgp":
        agent.sensor_DigitalGPIO_register(0, channels)
    elif unit == "imis":
        agent.sensor_MiscData_register(
            0, channels, ABSOLUTE, TYPES.descriptors.MiscDataDimensions(*dims)
        )
    else:
        names = {"irim": "RawIMU", "isim": "SmartIMU", "icpo": "CartesianPosition"}
        getattr(agent, f"sensor_{names[unit]}_register")(*size)
    for channel, part, values in writes:
        if unit == "irim":
            write = getattr(agent, f"sensor_raw_i_m_u_write_{part}")
            write(0, channel, TYPES.SignedPercentage3D(*signed(values)))
        elif unit == "isim":
            four = TYPES.SignedPercentage4D(*signed(values))
            agent.sensor_smart_i_m_u_write(0, channel, four)
        elif unit == "icpo":
            three = TYPES.Percentage3D(*(TYPES.Percentage.new_from_0_1(v) for v in values))
            agent.sensor_cartesian_position_write(0, channel, three)
        elif unit == "idgp":
            agent.sensor_digital_g_p_i_o_write(0, channel, bool(values[0]))
        else:
            volume = numpy.zeros(dims, numpy.float32)
            for x, y, z, p in values:
                volume[x, y, z] = p
            agent.sensor_misc_data_write(0, channel, TYPES.MiscData.new_from_array(volume))
    agent.sensors_encode_cached_sensor_data_to_bytes()
    areas = areas_of(bytes(agent.sensors_read_bytes()))
    return {key.hex(): voxels for key, voxels in areas.items()}


def moved(_: str, resolution: int, positioning: str, channels: int, frames: Any) -> list[Any]:
    """Positions of servos after each frame."""
    agent = connector_core.ConnectorAgent()
    place = getattr(AREA.PercentageNeuronPositioning, positioning)()
    agent.motor_positional_servo_register(0, channels, ABSOLUTE, resolution, place)
    answers = []
    for key, voxels in frames:
        agent.motors_load_in_bytes_and_verify(container(bytes.fromhex(key), voxels))
        agent.motors_decode_cached_byte_data_to_motor()
        read_value = agent.motor_positional_servo_read_preprocessed_cache_value
        answers.append([number(read_value(0, channel)) for channel in range(channels)])
    return answers


WORK = {"gpio": written, "imu": written, "sense": sensed, "servo": moved}

if __name__ == "__main__":
    found = []
    for request in json.load(sys.stdin):
        found.append(WORK.get(request[0], read)(*request))
    json.dump(found, sys.stdout)
