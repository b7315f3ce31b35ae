# SPDX-License-Identifier: Apache-2.0
"""Every unit of the real library in every combination of flags, one JSON list on standard output.

    [{"unit": registering method, "details": agent configuration, "ids": [hex, ...]}, ...]

A registering method that this program has no arguments for is a fault: it would go untested.
"""

from __future__ import annotations

import base64
import inspect
import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import feagi_rust_py_libs as library

TYPES = library.connector_core.data_types
DESCRIBED = TYPES.descriptors
AREA = library.data_structures.genomic.cortical_area
CHANGES = (AREA.FrameChangeHandling.Absolute, AREA.FrameChangeHandling.Incremental)
POSITIONS = (AREA.PercentageNeuronPositioning.Linear, AREA.PercentageNeuronPositioning.Fractional)
SCHEMAS = [name for name in vars(AREA.PoseSchema) if name[0] != "_" and name != "as_any"]
GROUP = 300

AUDIO = TYPES.AudioSpectrumProperties.new_linear(16000, 512, 256, 8, -60, 0)
SEGMENTS = DESCRIBED.SegmentedImageFrameProperties(
    DESCRIBED.SegmentedXYImageResolutions.create_with_same_sized_peripheral(
        DESCRIBED.ImageXYResolution(8, 6), DESCRIBED.ImageXYResolution(4, 3)
    ),
    DESCRIBED.ColorChannelLayout.RGB,
    DESCRIBED.ColorChannelLayout.GrayScale,
    DESCRIBED.ColorSpace.Gamma,
)
PICTURE = DESCRIBED.ImageFrameProperties(
    DESCRIBED.ImageXYResolution(32, 24),
    DESCRIBED.ColorSpace.Gamma,
    DESCRIBED.ColorChannelLayout.RGB,
)
# Parameter of a registering method -> what it gets. One not named here is a resolution.
ARGUMENTS = {
    "group": GROUP,
    "number_channels": 2,
    "audio_properties": AUDIO,
    "pose_properties": TYPES.PoseEstimationProperties(8, 6, 17),
    "image_properties": PICTURE,
    "input_image_properties": PICTURE,
    "segmented_image_properties": SEGMENTS,
    "initial_gaze": TYPES.GazeProperties.create_default_centered(),
    "misc_data_dimensions": DESCRIBED.MiscDataDimensions(4, 3, 2),
    "dimensions": DESCRIBED.MiscDataDimensions(4, 3, 2),
    "default_speed_0_1_per_channel": [1.0, 0.5],
    "incremental_step_0_1": 0.1,
    "height": 1,
    "depth": 8,
    "window_ms": 100,
}


def calls(name: str, parameters: list[str]) -> Iterator[list[Any]]:
    """The arguments of each combination of flags that the method can take."""
    flags = {
        "frame_change_handling": CHANGES,
        "percentage_neuron_positioning": POSITIONS,
        "pose_schema": [getattr(AREA.PoseSchema, schema) for schema in SCHEMAS],
    }
    mine = [flag for flag in flags if flag in parameters]
    for choice in itertools.product(*(flags[flag] for flag in mine)):
        chosen = {flag: make() for flag, make in zip(mine, choice, strict=True)}
        # a pointer has a column for each direction when it is incremental
        chosen["width"] = 3 if choice and choice[0] is CHANGES[0] else 6
        yield [chosen.get(p, ARGUMENTS.get(p, 8)) for p in parameters]


def main() -> None:
    """Register each, alone, and write down what came of it."""
    agent_type = library.connector_core.ConnectorAgent
    found = []
    for name in sorted(vars(agent_type)):
        if not name.endswith("_register"):
            continue
        parameters = list(inspect.signature(getattr(agent_type, name)).parameters)[1:]
        for arguments in calls(name, parameters):
            agent = agent_type()
            getattr(agent, name)(*arguments)
            ids = [
                *agent.get_sensory_cortical_ids_for_verification(),
                *agent.get_motor_cortical_ids_for_verification(),
            ]
            found.append(
                {
                    "unit": name,
                    "details": json.loads(agent.export_capabilities_json()),
                    "ids": [base64.b64decode(text).hex() for text in ids],
                }
            )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
