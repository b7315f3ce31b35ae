# SPDX-License-Identifier: Apache-2.0
"""The FEAGI wire, in one source for CPython and MicroPython.

Names are resolved when first used, so that a board spends memory only on what it runs:
`from feagi_wire import StaticFBC` loads the container and not the link.
"""

MYPY = False
if MYPY:  # what type checkers and editors see
    from .board_link import BoardLink as BoardLink
    from .const import AGENT_ID_BYTES as AGENT_ID_BYTES
    from .const import AREA_RECORD_BYTES as AREA_RECORD_BYTES
    from .const import CORTICAL_ID_BYTES as CORTICAL_ID_BYTES
    from .const import E_CAPACITY as E_CAPACITY
    from .const import E_CORRUPT as E_CORRUPT
    from .const import E_CRC as E_CRC
    from .const import E_FULL as E_FULL
    from .const import E_ID as E_ID
    from .const import E_RANGE as E_RANGE
    from .const import E_SHORT as E_SHORT
    from .const import E_STATE as E_STATE
    from .const import E_TIMEOUT as E_TIMEOUT
    from .const import E_TYPE as E_TYPE
    from .const import E_VERSION as E_VERSION
    from .const import END as END
    from .const import FBC_VERSION as FBC_VERSION
    from .const import HEADER_BYTES as HEADER_BYTES
    from .const import MAX_AREAS as MAX_AREAS
    from .const import MAX_STRUCTS as MAX_STRUCTS
    from .const import OK as OK
    from .const import SMALL_INT_MAX as SMALL_INT_MAX
    from .const import STREAM_CONTROL as STREAM_CONTROL
    from .const import STREAM_MOTOR as STREAM_MOTOR
    from .const import STREAM_SENSORY as STREAM_SENSORY
    from .const import STREAM_VISUALIZATION as STREAM_VISUALIZATION
    from .const import STRUCT_JSON as STRUCT_JSON
    from .const import STRUCT_VERSION as STRUCT_VERSION
    from .const import STRUCT_XYZP as STRUCT_XYZP
    from .const import VOXEL_BYTES as VOXEL_BYTES
    from .container import StaticFBC as StaticFBC
    from .cortical_id import id_is_valid as id_is_valid
    from .cortical_id import pack_unit_id as pack_unit_id
    from .errors import FeagiWireError as FeagiWireError
    from .errors import check as check
    from .framing import Framer as Framer
    from .framing import frame_bytes as frame_bytes
    from .host_link import HostLink as HostLink
    from .link import Link as Link
    from .pool import FbcPool as FbcPool
    from .views import view as view
    from .xyzp import ValueDecoder as ValueDecoder
    from .xyzp import ValueEncoder as ValueEncoder

_HOMES = {
    "const": (
        "FBC_VERSION AGENT_ID_BYTES HEADER_BYTES STRUCT_JSON STRUCT_XYZP STRUCT_VERSION "
        "AREA_RECORD_BYTES VOXEL_BYTES CORTICAL_ID_BYTES MAX_STRUCTS MAX_AREAS SMALL_INT_MAX "
        "STREAM_CONTROL STREAM_SENSORY STREAM_MOTOR STREAM_VISUALIZATION OK END E_CAPACITY E_STATE "
        "E_FULL E_SHORT E_VERSION E_TYPE E_CORRUPT E_ID E_RANGE E_CRC E_TIMEOUT"
    ),
    "errors": "FeagiWireError check",
    "cortical_id": "id_is_valid pack_unit_id",
    "container": "StaticFBC",
    "pool": "FbcPool",
    "xyzp": "ValueEncoder ValueDecoder",
    "framing": "Framer frame_bytes",
    "link": "Link",
    "board_link": "BoardLink",
    "host_link": "HostLink",
    "views": "view",
}

__all__ = sorted(" ".join(_HOMES.values()).split())


def __getattr__(name: str) -> object:
    if name in _HOMES or name == "kernels":
        return __import__("feagi_wire." + name, None, None, (name,))
    for module, names in _HOMES.items():
        if name in names.split():
            # the fourth argument makes both interpreters return the submodule itself
            return getattr(__import__("feagi_wire." + module, None, None, (name,)), name)
    raise AttributeError(name)
