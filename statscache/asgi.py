"""The application for ASGI servers: ``uvicorn statscache.asgi:application``."""

from statscache.app import create_app
from statscache.app.live.asgi import AsgiApplication
from statscache.logs.records import log_as_server

log_as_server()
application = AsgiApplication(create_app())
