"""From a request to its response, alike for all routes.

Begin with :mod:`~statscache.app.dispatch.route`: what a route declares, and the steps of a request.
:mod:`~statscache.app.dispatch.route_table` finds the route of an address,
:mod:`~statscache.app.dispatch.plan` what the request means, and
:mod:`~statscache.app.dispatch.dispatcher` answers it: from the cache
(:mod:`~statscache.app.dispatch.answer_cache`), or by the function of the route, which runs once for
equal requests at the same time (:mod:`~statscache.app.dispatch.single_flight`).
"""
