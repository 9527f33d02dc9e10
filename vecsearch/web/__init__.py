"""The page, the JSON API and MCP: the library, for browsers, other programs and assistants.

app.py         the application: routes, middleware, errors to responses
site.py        what every route is given: the library and the options of the server
api.py         the JSON API, under /api
pages.py       the pages
asked.py       the question, as the pages show it
views.py       values to HTML, with templates/ here; no build step
mcp/           the server of MCP: tools over stdin and stdout
parameters.py  the questions of all, typed, and the `Query` made of them
access/        who may ask: users, hosts, the token
bodies.py      how much a request may send, and how slowly
uploads.py     uploaded query images, kept so that addresses can be shared
metrics.py     counters and histograms for Prometheus
serving.py     the socket, and who is at its other end
connections.py uvicorn on it, with bounds of connections, time and log
"""
