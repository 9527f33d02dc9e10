"""The web page and the JSON API: the same library, for a browser and for other programs.

app.py         the application, put together; errors to answers
site.py        what every route is given
api.py         /api: what programs ask
pages.py       what people see
views.py       values to pages, by templates/ here; no build step
parameters.py  what may be asked, typed
guard.py       who may ask: hosts, the token, and what a browser is told to refuse
uploads.py     query pictures, kept so that their addresses can be shared
originals.py   files of ingested rows, and no others
metrics.py     counts and times, for Prometheus
serving.py     a socket, and uvicorn on it
"""
