"""The commands duplicates and undo."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecsearch.cli.command import (
    CollectionOption,
    FormatOption,
    YesOption,
    app,
    chosen_format,
    command,
    confirming,
    is_terminal,
    open_library,
    say,
    say_all,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.errors import NotConfirmed
from vecsearch.render.rows import Format
from vecsearch.vocabulary import (
    DEFAULT_COLLECTION,
    MAX_DIFFERENCE,
    FileAction,
    FileState,
    KeepRule,
    choices,
    command_line,
    counted,
)

if TYPE_CHECKING:
    from vecsearch.analysis.duplicates.groups import Duplicates
    from vecsearch.analysis.tidy.journal import Entry
    from vecsearch.analysis.tidy.plan import Plan
    from vecsearch.collection import Collection

COLUMNS = (
    "group id path distance difference width height file_size modified_at taken_at could_go missing"
).split()
TABLE_COLUMNS = "group difference width height file_size could_go missing path".split()
PLAN_COLUMNS = "action path kept_path bytes reason".split()
DONE_COLUMNS = "run number action state path kept_path target reason".split()
DONE_TABLE_COLUMNS = "state path reason".split()
UNDO_TABLE_COLUMNS = "path reason".split()
RUN_COLUMNS = "run at action files done left undone".split()


@command(
    app,
    "duplicates",
    prints_paths=True,
    interrupted="What was done stays. To undo it: vecsearch undo, with the same --collection",
)
def duplicates(
    settings: Settings,
    collection: CollectionOption = DEFAULT_COLLECTION,
    max_distance: Annotated[
        float | None,
        typer.Option(
            help="Two images can be duplicates up to this cosine distance of their embeddings, "
            "such as 0.05. Default: chosen from the collection's own distances."
        ),
    ] = None,
    max_difference: Annotated[
        float | None,
        typer.Option(
            help="They are duplicates up to this difference of their thumbnails: 0 is the same "
            f"picture, 1 another one. Default: {MAX_DIFFERENCE}."
        ),
    ] = None,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Find mirrored copies, too.")
    ] = False,
    order: Annotated[
        KeepRule | None,
        typer.Option(
            help=f"Which image of a group comes first: {choices(KeepRule)}. "
            f"Default: as --keep, or {KeepRule.oldest}.",
        ),
    ] = None,
    keep: Annotated[
        KeepRule | None,
        typer.Option(
            help=f"Keep this image of each group, and mark the others: {choices(KeepRule)}. "
            "largest: by pixels, then bytes; oldest and newest: by when it was taken, or else "
            "modified. Of equal ones, the older, then the shorter path. "
            "With --format paths, print only the others.",
        ),
    ] = None,
    prefer: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Keep an image in this folder if a group has one."),
    ] = None,
    apply: Annotated[
        FileAction | None,
        typer.Option(
            help="Act on the files of the others: send them to the trash, move them --to a "
            "folder, or replace those of the same bytes by a hardlink or a symlink to the one "
            "that is kept. Shows what it would do, and asks. vecsearch undo brings them back.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where --apply move puts files.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what --apply would do, and do nothing.")
    ] = False,
    yes: YesOption = False,
    not_: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--not",
            metavar="IMAGE IMAGE",
            help="Record that these two images, named by path or id, are not duplicates, and exit.",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare every image with every other; slow.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Show groups of near-duplicates: resized, cropped, recompressed, brightened.

    Nothing is deleted without --apply. Embeddings choose pairs, and the stored thumbnails confirm
    them. Groups are chains of such pairs. Distance (of embeddings) and difference (of thumbnails)
    are to the group's first image.
    """
    _require_together(keep, apply, given=to is not None or dry_run)
    with open_library(settings) as library:
        asked = library.collection(collection)
        if not_ is not None:
            is_new = asked.not_duplicates(*not_)
            say(f"{'Recorded' if is_new else 'Already recorded'}: these two are not duplicates.")
            return
        options: dict[str, Any] = {
            "max_distance": max_distance,
            "max_difference": max_difference,
            "mirrored": mirrored,
            "order": order,
            "keep": keep,
            "prefer": prefer,
            "exact": exact,
        }
        if apply is not None:
            plan = asked.tidy.plan(apply, to=to, **options)
            say_all(plan.notes)
            if dry_run:
                _show_plan(plan, chosen_format(format_), sys.stdout)
            else:
                _apply(asked, plan, format_, yes=yes)
            return
        found = asked.duplicates(**options)
    say_all(_notes(found, collection, suggested=max_distance is None))
    # A column of "no" says nothing.
    has_missing = any(row.missing for row in found.images)
    table_columns = [name for name in TABLE_COLUMNS if has_missing or name != "missing"]
    write_rows(
        found.images,
        format_,
        columns=COLUMNS,
        table_columns=table_columns,
        lists=lambda row: keep is None or row["could_go"],
    )


@command(app, "undo", prints_paths=True, interrupted="Run it again to undo the rest.")
def undo(
    settings: Settings,
    run: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="Which run. Default: the last.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List all runs, and undo none.")] = False,
    collection: CollectionOption = DEFAULT_COLLECTION,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be brought back, and do nothing.")
    ] = False,
    yes: YesOption = False,
    format_: FormatOption = None,
) -> None:
    """Undo a `duplicates --apply`: bring files and their rows back as they were.

    A file that is no longer in the trash, or whose name another file has now, stays as it is, and
    the reason is printed. Once that is put right, run it again.
    """
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library:
        tidy = library.collection(collection).tidy
        if list_:
            runs = tidy.runs()
            if not runs:
                say("No files were acted on yet, so there is nothing to undo.")
            write_rows(runs, format_, columns=RUN_COLUMNS)
            return
        if dry_run:
            _show_undo(tidy.undoable(run), format_)
            return
        chosen = tidy.chosen(run)
        sentence = (
            f"Run {chosen.run}, {chosen.action}, {chosen.at:%Y-%m-%d %H:%M}: this brings "
            f"{counted(chosen.done, 'file')} back."
        )
        if not confirming("Undo it?", yes=yes)(sentence):
            raise NotConfirmed(f"{sentence} That needs a yes: add --yes. Nothing was undone.")
        with steps_progress() as progress:
            done = tidy.undo(chosen.run, on_progress=progress)
    back = [entry for entry in done if entry.state is FileState.undone]
    say(f"Brought {counted(len(back), 'file')} back.")
    if len(back) < len(done):
        say(f"{counted(len(done) - len(back), 'file')} could not be brought back; see the reasons.")
    write_rows(
        done, format_, columns=DONE_COLUMNS, table_columns=DONE_TABLE_COLUMNS, lists=_is_acted_on
    )
    if len(back) < len(done):
        raise typer.Exit(1)


def _show_undo(entries: "list[Entry]", format_: Format | None) -> None:
    stuck = [entry for entry in entries if entry.reason is not None]
    say(f"Would bring {counted(len(entries) - len(stuck), 'file')} back.")
    if stuck:
        say(f"{counted(len(stuck), 'file')} cannot be brought back; see the reasons.")
    write_rows(
        entries,
        format_,
        columns=DONE_COLUMNS,
        table_columns=UNDO_TABLE_COLUMNS,
        dry_run=True,
        lists=_is_acted_on,
    )


def _is_acted_on(row: dict[str, Any]) -> bool:
    """Tell whether nothing is against acting on a file; xargs should not get the others."""
    return row["reason"] is None


def _require_together(keep: KeepRule | None, apply: FileAction | None, *, given: bool) -> None:
    if apply is None and given:
        raise typer.BadParameter("--to and --dry-run are for --apply.")
    if apply is not None and keep is None:
        raise typer.BadParameter("--apply needs --keep: which image of each group stays?")


def _apply(collection: "Collection", plan: "Plan", format_: Format | None, *, yes: bool) -> None:
    from vecsearch.render.tidying import was_done

    done = _done(collection, plan, yes=yes) if plan.files else []
    run = done[0].run if done else None
    acted = [entry for entry in done if entry.state is FileState.done]
    if acted:
        undoing = command_line("undo", run, collection=collection.name)
        say(f"{was_done(plan.action, len(acted), plan.folder)} To undo it: {undoing}")
    else:
        say("Nothing was done." if done else "There is nothing to do.")
    left = len(done) - len(acted) + len(plan.untouched)
    if left:
        say(f"{counted(left, 'duplicate')} left alone; see the reasons.")
    rows = [tuple(getattr(entry, name) for name in DONE_COLUMNS) for entry in done]
    rows += [
        (run, None, plan.action, FileState.left, each.path, each.kept_path, None, each.reason)
        for each in plan.untouched
    ]
    write_rows(
        rows, format_, columns=DONE_COLUMNS, table_columns=DONE_TABLE_COLUMNS, lists=_is_acted_on
    )
    if done and not acted:
        raise typer.Exit(1)


def _done(collection: "Collection", plan: "Plan", *, yes: bool) -> "Sequence[Entry]":
    """Ask, and act on the files of a plan.

    Raises:
        NotConfirmed: the answer was no, or nobody could be asked.

    """
    from vecsearch.cli.progress import steps_progress
    from vecsearch.render.tidying import will_do

    sentence = will_do(plan)
    if is_terminal() and not yes:
        _show_plan(plan, Format.table, sys.stderr)
    if not confirming("Do it?", yes=yes)(sentence):
        raise NotConfirmed(f"{sentence} That needs a yes: add --yes. Nothing was done.")
    with steps_progress() as progress:
        return collection.tidy.apply(plan, on_progress=progress)


def _show_plan(plan: "Plan", format_: Format, out: Any) -> None:
    from vecsearch.analysis.tidy.plan import listed
    from vecsearch.render import rows as rendering

    rendering.write_rows(out, listed(plan), format_, PLAN_COLUMNS, dry_run=True, lists=_is_acted_on)


def _notes(found: "Duplicates", collection: str, *, suggested: bool) -> Iterator[str]:
    if suggested:
        yield (
            f"Two images count as duplicates below a distance of about {found.typical:.2g} "
            "(chosen from this collection) if their thumbnails differ by at most "
            f"{found.max_difference:g}. "
            "Set your own: --max-distance 0.05 --max-difference 0.05"
        )
    if found.unconfirmed:
        has = "has" if found.unconfirmed == 1 else "have"
        below = f" below about {found.alone:.2g}" if suggested else ""
        yield (
            f"{counted(found.unconfirmed, 'image')} {has} no thumbnail to compare: the embedding "
            f"alone decides{below}. `vecsearch ingest` makes missing thumbnails."
        )
    if not found.images:
        yield "There are no near-duplicates."
    else:
        groups = counted(found.images[-1].group, "group")
        yield f"{counted(len(found.images), 'image')} in {groups}. Nothing is deleted."
    if (missing := found.missing_note(collection)) is not None:
        yield missing
    if found.split:
        yield (
            "Some images have hundreds of duplicates, so one group may appear as several. "
            "Try a smaller --max-distance."
        )
