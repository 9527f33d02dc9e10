"""What is done to duplicates' files, in words."""

from vecsearch.analysis.tidy.journal import Entry
from vecsearch.analysis.tidy.plan import Plan
from vecsearch.render.figures import human_bytes
from vecsearch.vocabulary import FileAction, FileState, counted

# What an action does, before and after it, and what becomes of one file.
_DO = {
    FileAction.trash: "Send {files} to the trash",
    FileAction.move: "Move {files} to {folder}",
    FileAction.hardlink: "Replace {files} by hard links",
    FileAction.symlink: "Replace {files} by symbolic links",
}
_DID = {
    FileAction.trash: "Sent {files} to the trash",
    FileAction.move: "Moved {files}",
    FileAction.hardlink: "Replaced {files} by hard links",
    FileAction.symlink: "Replaced {files} by symbolic links",
}
BECOMES = {
    FileAction.trash: "goes to the trash",
    FileAction.move: "is moved",
    FileAction.hardlink: "becomes a hard link",
    FileAction.symlink: "becomes a symbolic link",
}

_IS = {
    FileAction.trash: "in the trash",
    FileAction.hardlink: "a hard link to the image that stays",
    FileAction.symlink: "a symbolic link to the image that stays",
}


def to_do(plan: Plan) -> str:
    """Return what a plan does, as words on a button."""
    return _DO[plan.action].format(files=counted(len(plan.files), "file"), folder=plan.folder)


def will_do(plan: Plan) -> str:
    """Return what a plan does, as a sentence."""
    do = to_do(plan)
    kept = counted(plan.kept, "image")
    return f"This will {do[0].lower()}{do[1:]} ({human_bytes(plan.size)}), and keep {kept}."


def was_done(action: FileAction, files: int, folder: str | None = None) -> str:
    """Return what was done to so many files, as a sentence; `folder`: where they were moved."""
    to = "" if folder is None else f" to {folder}"
    return f"{_DID[action].format(files=counted(files, 'file'))}{to}."


def stands(action: FileAction, done: int, undone: int) -> str:
    """Return how far a run is, as a sentence: so many files are done now, so many were undone."""
    if undone and done:
        return f"Brought {undone:,} of {counted(done + undone, 'file')} back."
    if undone:
        return f"Brought {counted(undone, 'file')} back."
    return was_done(action, done) if done else "Nothing was done."


def outcome(entry: Entry) -> str:
    """Return where a file of a run is now, in words."""
    match entry.state:
        case FileState.done:
            moved = f"moved to {entry.target}"
            return _IS.get(entry.action, moved)
        case FileState.undone:
            return "back in its place"
        case FileState.left:
            return "left alone"
        case _:
            return "in between: the run was interrupted, or goes on"
