"""SQLAlchemy's automap, which knows nothing of pgvector: the distance is a function of SQL."""

import warnings

import sqlalchemy as sa
from said import IMAGE, LABEL, PAGE, URL, rows, types, version
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import Session

version(sa.__version__)
engine = sa.create_engine(URL.replace("postgresql:", "postgresql+psycopg:"))
Base = automap_base()
with warnings.catch_warnings(action="ignore", category=sa.exc.SAWarning):
    Base.prepare(engine)
Images = Base.classes.images
types({column.name: repr(column.type) for column in Images.__table__.c})
own = sa.select(Images.embedding).where(Images.id == IMAGE).scalar_subquery()
distance = sa.func.embedding_distance(Images.embedding, own, type_=sa.Double())
near = sa.select(Images.id).order_by(distance)
with Session(engine) as session:
    rows("nearest", session.scalars(near.limit(10)))
    rows("hundred", session.scalars(near.limit(100)))
    rows("filter", session.scalars(near.where(Images.label == LABEL).limit(20)))
    rows("all", session.scalars(near.execution_options(yield_per=PAGE)))
