"""Django, with an unmanaged model, and the distance as a database function."""

import os

import django
from django.conf import settings
from django.db import connection, models
from said import IMAGE, LABEL, PAGE, rows, types, version

DATABASE = {
    "ENGINE": "django.db.backends.postgresql",
    **{name: os.environ[f"PG{name}"] for name in ("HOST", "PORT", "USER", "PASSWORD")},
    "NAME": os.environ["PGDATABASE"],
}
settings.configure(DATABASES={"default": DATABASE})
django.setup()


class Images(models.Model):  # noqa: DJ008 - nobody prints one
    """A collection; `inspectdb` writes it, but for the embedding, which is a text there."""

    id = models.UUIDField(primary_key=True)
    path = models.TextField()
    label = models.TextField()
    metadata = models.JSONField()
    embedding = models.TextField()

    class Meta:
        """Another program's table."""

        app_label = "photos"
        managed = False
        db_table = "images"


class EmbeddingDistance(models.Func):
    """Cosine distance."""

    function = "embedding_distance"
    output_field = models.FloatField()


version(django.__version__)
with connection.cursor() as cursor:
    described = connection.introspection.get_table_description(cursor, "images")
    types({c.name: connection.introspection.data_types_reverse.get(c.type_code) for c in described})
own = models.Subquery(Images.objects.filter(id=IMAGE).values("embedding"))
near = Images.objects.annotate(distance=EmbeddingDistance("embedding", own)).order_by("distance")
ids = near.values_list("id", flat=True)
rows("nearest", ids[:10])
rows("hundred", ids[:100])
rows("filter", ids.filter(label=LABEL)[:20])
rows("all", ids.iterator(chunk_size=PAGE))
