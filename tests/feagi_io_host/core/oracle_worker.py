# SPDX-License-Identifier: Apache-2.0
"""A process around the real library: one JSON request per line in, one answer per line out.

The library panics on some malformed containers, which reaches Python as a BaseException; here it
becomes an answer. Requests:

    {"op": "read", "data": hex}    -> {"load": null | fault, "structs": [voxels | "json" | fault]}
    {"op": "write", "areas": [[id hex, x, y, z, p bits], ...], "counter": n}   -> {"data": hex}
    {"op": "id", "data": hex}      -> {"base64": text, "u64": number} | {"fault": fault}

Voxels are written as {id hex: [x, y, z, p bits]}, a fault as [exception name, message].
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import feagi_rust_py_libs as library
import numpy as np

XYZP = library.data_structures.neurons_voxels.xyzp
CorticalID = library.data_structures.genomic.cortical_area.CorticalID
Container = library.data_serialization.FeagiByteContainer
NOT_VOXELS = "is not a CorticalMappedXYZPNeuronVoxels struct"


def fault(error: BaseException) -> list[str]:
    return [type(error).__name__, str(error)]


def voxels_from(struct: Any) -> dict[str, list[list[int]]]:
    found = {}
    for key, (x, y, z, p) in struct.iter_full():
        parts = [np.array(part, np.uint32) for part in (x, y, z)]
        bits = np.array(p, np.float32).view(np.uint32)
        found[base64.b64decode(key).hex()] = [part.tolist() for part in (*parts, bits)]
    return found


def read(data: bytes) -> dict[str, Any]:
    container = Container()
    try:
        container.load_bytes_and_verify(data)
        count = container.number_contained_structures
    except BaseException as error:
        return {"load": fault(error), "structs": []}
    structs: list[Any] = []
    for index in range(count):
        try:
            struct = container.try_create_new_struct_from_index(index)
        except BaseException as error:
            # The library parses JSON before it says that Python has no type for it.
            structs.append("json" if NOT_VOXELS in str(error) else fault(error))
        else:
            structs.append(voxels_from(struct))
    return {"load": None, "structs": structs}


def write(areas: list[Any], counter: int) -> dict[str, Any]:
    mapped = XYZP.CorticalMappedXYZPNeuronVoxels()
    for key, x, y, z, bits in areas:
        coordinates = [np.array(part, np.uint32) for part in (x, y, z)]
        potentials = np.array(bits, np.uint32).view(np.float32)
        arrays = XYZP.PyNeuronVoxelXYZPArrays.new_from_numpy(*coordinates, potentials)
        mapped.insert(CorticalID.try_from_bytes(bytes.fromhex(key)), arrays)
    container = Container()
    container.add_struct(mapped, counter)
    return {"data": bytes(container.copy_out_as_byte_vector()).hex()}


def identify(data: bytes) -> dict[str, Any]:
    try:
        one = CorticalID.try_from_bytes(data)
        return {"base64": one.as_base_64(), "u64": one.as_u64()}
    except BaseException as error:
        return {"fault": fault(error)}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["op"] == "read":
        return read(bytes.fromhex(request["data"]))
    if request["op"] == "write":
        return write(request["areas"], request["counter"])
    return identify(bytes.fromhex(request["data"]))


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
