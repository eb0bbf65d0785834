"""The application for WSGI servers: ``gunicorn statscache.wsgi:application``."""

from statscache.app import create_app
from statscache.logs.records import log_as_server

log_as_server()
application = create_app()
