"""What is said of a DLC that cannot be read."""

from __future__ import annotations

from edgedeploy.errors import InputError


class DlcError(InputError):
    """The file is not a DLC that this reader understands, or it is damaged."""

    def __init__(self, found: str) -> None:
        super().__init__(
            "This is not a readable DLC.",
            found=found,
            remedy="Convert the model again, or copy the file again if it came from elsewhere.",
        )
