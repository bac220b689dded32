"""The splits that the `datasets` library saved in one folder, as the examples of a task."""

from dataclasses import replace

from palavra.data.record_files import names_records
from palavra.data.remote import File, file_of
from palavra.data.saved_datasets import Use, is_saved, split_folder, splits_of, usual_split
from palavra.tasks.spec import TaskSpec


def with_saved_splits(spec: TaskSpec) -> TaskSpec:
    """Return the specification with the folder of one split, wherever it names a folder in which `datasets` saved
    several. Those for validation and test beside the training split are used as such, unless others, or the training
    split, are named."""
    folders: dict[str, str] = {}
    beside = _saved_with_splits(spec.train) if spec.split is None else None
    uses: tuple[Use, ...] = ("train", "valid", "test")
    for use in uses:
        named = getattr(spec, use)
        if named and (folder := _saved_with_splits(named)):
            folders[use] = str(split_folder(folder, spec.split if use == "train" else None, use))
        elif not named and beside and (usual := usual_split(beside, use)):
            folders[use] = str(usual)
    return replace(
        spec,
        train=folders.get("train", spec.train),
        valid=folders.get("valid", spec.valid),
        test=folders.get("test", spec.test),
    )


def _saved_with_splits(source: str) -> File | None:
    """Return the folder that a source names, if `datasets` saved several splits in it."""
    folder = file_of(source)
    return folder if not names_records(source) and is_saved(folder) and splits_of(folder) else None
