# SPDX-License-Identifier: Apache-2.0
"""Every error the host library raises.

    ValueError
      FeagiDataError                 bytes or values that are not FEAGI data; see the fields
        ContainerTooShortError       fewer bytes than header, table or structs need
        ContainerVersionError        version byte is not 4
        StructTypeError              struct type other than 1 (JSON) and 11 (XYZP)
        StructVersionError           struct version other than 1
        StructCorruptError           offsets, lengths or JSON text disagree
        CorticalIDError              8 bytes that name no possible cortical area
        VoxelArrayError              voxel arrays of unequal length, wrong dtype or shape
        ContainerLimitError          more than 255 structs, 65535 areas or 4 GiB

    Exception
      FeagiIOError                   everything that is not about the data itself
        LocalError                   this program used the library wrongly
          ClosedError                used after close or stop
          LeaseError                 a buffer used after its lease was given back
          UnknownHandleError         no such signal connection, agent or stream
          MissingPartError           something is not on this machine; says where it comes from
            MissingExtraError        an optional part is not installed; says what to install
          ConfigError                a setting that does not exist or does not fit
        RemoteError                  the other side misbehaved
          LinkVersionError           the board speaks another link or container version
          NotABoardError             a REPL, an echo or noise answered instead of a board
          RegistrationRefusedError   the server does not let this agent in; says why
          ConfigurationRefusedError  the server does not take this agent's units
        PortError                    a serial or network port cannot be used; says why
          PortNotFoundError  PortBusyError  PortPermissionError
        DeliveryTimeoutError         a deadline of the delivery table passed
        StopTimeoutError             something did not stop in time; names it

Whose fault it is (LocalError or RemoteError) is decided where the error is made, once.
Messages carry numbers: what came, what was expected, what to do next.
"""

from __future__ import annotations


class FeagiDataError(ValueError):
    """Bytes or values that are not valid FEAGI data."""


class ContainerTooShortError(FeagiDataError):
    """Fewer bytes than the container's header, table or structs need."""


class ContainerVersionError(FeagiDataError):
    """The version byte is not 4."""


class StructTypeError(FeagiDataError):
    """A struct type other than 1 (JSON) and 11 (XYZP)."""


class StructVersionError(FeagiDataError):
    """A struct version other than 1."""


class StructCorruptError(FeagiDataError):
    """Offsets, lengths or JSON text inside a struct disagree."""


class CorticalIDError(FeagiDataError):
    """Eight bytes (or their base64 or u64 form) that name no possible cortical area."""


class VoxelArrayError(FeagiDataError):
    """Voxel arrays of unequal length, wrong dtype or wrong shape."""


class ContainerLimitError(FeagiDataError):
    """More structs, areas or bytes than the wire format can count."""


class FeagiIOError(Exception):
    """Root of everything that is not about the data itself."""


class LocalError(FeagiIOError):
    """This program used the library wrongly."""


class ClosedError(LocalError):
    """Used after close or stop."""


class LeaseError(LocalError):
    """A leased buffer was used after it was given back, or given back twice."""


class UnknownHandleError(LocalError):
    """No such signal connection, agent or stream."""


class MissingPartError(LocalError):
    """Something that is needed is not on this machine. The message says where it comes from."""


class MissingExtraError(MissingPartError):
    """An optional part is not installed. The message holds the line that installs it."""

    def __init__(self, part: str, extra: str) -> None:
        self.extra = extra
        super().__init__(
            f"{part} is not installed; it comes with the extra '{extra}': "
            f"pip install 'feagi-io[{extra}]'"
        )


class ConfigError(LocalError):
    """A setting that does not exist or does not fit."""


class RemoteError(FeagiIOError):
    """The other side misbehaved."""


class LinkVersionError(RemoteError):
    """The board speaks another link or container version."""


class NotABoardError(RemoteError):
    """A REPL, an echo or noise answered instead of a board running the agent."""


class RegistrationRefusedError(RemoteError):
    """The server does not let this agent in; `reason` is its own word for why, "" if it gave
    none."""

    def __init__(self, message: str, reason: str = "") -> None:
        self.reason = reason
        super().__init__(message)


class ConfigurationRefusedError(RemoteError):
    """The server does not take the units that this agent has."""


class PortError(FeagiIOError):
    """A serial or network port cannot be used; the message says why and what to do."""


class PortNotFoundError(PortError):
    """There is no such port."""


class PortBusyError(PortError):
    """Another program holds the port."""


class PortPermissionError(PortError):
    """This user may not open the port."""


class DeliveryTimeoutError(FeagiIOError):
    """A deadline of the delivery table passed before the data could be handed on."""


class StopTimeoutError(FeagiIOError):
    """Something did not stop in time; the message names it."""
