"""What is done to duplicates' files, in words."""

from vecsearch.analysis.tidy.plan import Plan
from vecsearch.render.figures import human_bytes
from vecsearch.vocabulary import FileAction, counted

# What an action does, before and after it.
_DOES = {
    FileAction.trash: "sends {files} to the trash",
    FileAction.move: "moves {files} to {folder}",
    FileAction.hardlink: "replaces {files} by hard links",
    FileAction.symlink: "replaces {files} by symbolic links",
}
_DID = {
    FileAction.trash: "Sent {files} to the trash",
    FileAction.move: "Moved {files} to {folder}",
    FileAction.hardlink: "Replaced {files} by hard links",
    FileAction.symlink: "Replaced {files} by symbolic links",
}


def will_do(plan: Plan) -> str:
    """Return what a plan does, as a sentence."""
    does = _DOES[plan.action].format(files=counted(len(plan.files), "file"), folder=plan.folder)
    return f"This {does} ({human_bytes(plan.size)}), and keeps {counted(plan.kept, 'image')}."


def was_done(plan: Plan, files: int) -> str:
    """Return what was done to so many files of a plan, as a sentence."""
    return f"{_DID[plan.action].format(files=counted(files, 'file'), folder=plan.folder)}."
