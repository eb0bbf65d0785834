"""The parts of requests and responses; no module here knows a route.

Of a request: :mod:`~statscache.app.http.request`, its :mod:`~statscache.app.http.parameters`,
:mod:`~statscache.app.http.times` and :mod:`~statscache.app.http.cursors`. Of a response: what a
route says (:mod:`~statscache.app.http.answer`) is written in one of the
:mod:`~statscache.app.http.formats` and sent as a :mod:`~statscache.app.http.response`; errors are
:mod:`~statscache.app.http.problems`.
"""
