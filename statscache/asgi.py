"""The application for ASGI servers: ``uvicorn statscache.asgi:application``."""

from statscache.app import create_app
from statscache.app.asgi import AsgiApplication

application = AsgiApplication(create_app())
