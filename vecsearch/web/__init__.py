"""The web page and the JSON API: the library, for browsers and for other programs.

app.py         the application: routes, middleware, errors to responses
site.py        what every route is given: the library and the options of the server
api.py         the JSON API, under /api
pages.py       the pages
asked.py       the question, as the pages show it
views.py       values to HTML, with templates/ here; no build step
parameters.py  the questions of both, typed, and the `Query` made of them
guard.py       access: users, hosts, the token, and the security headers
throttle.py    how many wrong tokens may be sent
bodies.py      how much a request may send, and how slowly
uploads.py     uploaded query images, kept so that addresses can be shared
metrics.py     counters and histograms for Prometheus
serving.py     the socket, and who is at its other end
connections.py uvicorn on it, with bounds of connections, time and log
"""
