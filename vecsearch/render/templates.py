"""Jinja templates: how the report and the pages of the server show paths, sizes and distances."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vecsearch.render.figures import human_bytes, human_number
from vecsearch.render.visible import visible
from vecsearch.vocabulary import Metric


def environment(package: str, folder: str) -> Environment:
    """Return an environment that loads the templates of a package's folder."""
    made = Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"breakable": _breakable, "bytes": human_bytes, "distance": human_number}
    made.globals["Metric"] = Metric
    return made


def _breakable(path: str) -> Markup:
    """Allow a line break after each slash of a path, and show what would reverse its order."""
    return Markup("/<wbr>").join(visible(path, keep="").split("/"))
