"""What the program writes: folders of its own, and files that replace no input."""

from palavra.output.errors import Unwritable
from palavra.output.file import check_no_input, output_file
from palavra.output.folder import Kind, check, check_alone, claimed, discard, folder_kind, is_part
from palavra.output.local import check_local

__all__ = [
    "Kind",
    "Unwritable",
    "check",
    "check_alone",
    "check_local",
    "check_no_input",
    "claimed",
    "discard",
    "folder_kind",
    "is_part",
    "output_file",
]
