# SPDX-License-Identifier: Apache-2.0
"""A container in words and as plain data."""

from __future__ import annotations

from typing import Any

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.types import FeagiByteStructureType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels

_SHOWN_VOXELS = 8


def first_voxels(container: FeagiByteContainer) -> CorticalMappedXYZPNeuronVoxels | None:
    """The voxels of the container's first XYZP struct, None without one."""
    struct = container.try_create_struct_from_first_found_struct_of_type(
        FeagiByteStructureType.NEURON_CATEGORICAL_XYZP
    )
    return struct if isinstance(struct, CorticalMappedXYZPNeuronVoxels) else None


def container_as_data(container: FeagiByteContainer) -> dict[str, Any]:
    """Everything in the container, ready for json.dumps; potentials as text when not finite."""
    structs: list[dict[str, Any]] = []
    for index in range(container.try_get_number_contained_structures()):
        struct = container.try_create_new_struct_from_index(index)
        if isinstance(struct, FeagiJSON):
            structs.append({"type": "JSON", "value": struct.value})
            continue
        areas = []
        for cortical_id, arrays in struct:
            x, y, z, p = arrays.borrow_xyzp_vectors()
            areas.append(
                {
                    "id": cortical_id.as_bytes().hex(),
                    "text": repr(cortical_id.as_bytes())[2:-1],
                    "x": x.tolist(),
                    "y": y.tolist(),
                    "z": z.tolist(),
                    "p": [v if abs(v) <= 3.5e38 else repr(v) for v in p.tolist()],
                }
            )
        structs.append({"type": "NEURON_CATEGORICAL_XYZP", "areas": areas})
    return {
        "bytes": container.get_number_of_bytes_used(),
        "increment_counter": container.get_increment_counter(),
        "agent_id": container.get_agent_identifier_bytes().hex(),
        "structs": structs,
    }


def container_as_text(container: FeagiByteContainer) -> str:
    """The same for people; long areas are cut, and say so."""
    data = container_as_data(container)
    agent = "none" if not any(bytes.fromhex(data["agent_id"])) else data["agent_id"]
    lines = [
        f"{data['bytes']} bytes, increment counter {data['increment_counter']}, agent {agent}, "
        f"{len(data['structs'])} struct(s)"
    ]
    for index, struct in enumerate(data["structs"]):
        if struct["type"] == "JSON":
            lines.append(f"  struct {index}: JSON {struct['value']!r}")
            continue
        lines.append(f"  struct {index}: XYZP, {len(struct['areas'])} area(s)")
        for area in struct["areas"]:
            count = len(area["x"])
            lines.append(f"    {area['text']}  ({area['id']})  {count} neuron(s)")
            rows = zip(area["x"], area["y"], area["z"], area["p"], strict=True)
            for _, (x, y, z, p) in zip(range(_SHOWN_VOXELS), rows, strict=False):
                lines.append(f"      x {x}  y {y}  z {z}  p {p}")
            if count > _SHOWN_VOXELS:
                lines.append(f"      ... and {count - _SHOWN_VOXELS} more")
    return "\n".join(lines)
