"""Apache Superset as SQL Lab runs a statement: parsed and limited by sqlglot, then by pandas."""

import os
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
config = folder / "superset_config.py"
config.write_text(
    f"SECRET_KEY = 'of a test'\nSQLALCHEMY_DATABASE_URI = 'sqlite:///{folder}/superset.db'\n"
)
os.environ["SUPERSET_CONFIG_PATH"] = str(config)

from said import ASKED, URL, rows, types, version  # noqa: E402 - after the settings
from superset.app import create_app  # noqa: E402 - it reads them when it is imported

application = create_app()
with application.app_context():
    from superset.models.core import Database
    from superset.sql.parse import SQLScript
    from superset.utils.version import get_version_metadata

    version(get_version_metadata()["version_string"])
    database = Database(database_name="photos", sqlalchemy_uri=URL)
    database.set_sqlalchemy_uri(URL)

    def ask(question, limit=10_000):
        script = SQLScript(ASKED[question], database.db_engine_spec.engine)
        (statement,) = script.statements
        if (statement.get_limit_value() or limit + 1) > limit:
            statement.set_limit_value(limit)
        return database.get_df(statement.format(), schema="vecsearch")

    types(ask("types").dtypes)
    for question in ("nearest", "hundred", "filter", "all"):
        rows(question, ask(question)["id"])
