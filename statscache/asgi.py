"""The application for ASGI servers: ``uvicorn statscache.asgi:application``."""

from statscache.app import create_app
from statscache.app.live.asgi import AsgiApplication
from statscache.logs.records import log_unless_configured

log_unless_configured()
application = AsgiApplication(create_app())
