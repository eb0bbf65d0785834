"""The application for WSGI servers: ``gunicorn statscache.wsgi:application``."""

from statscache.app import create_app
from statscache.logs.records import log_unless_configured

log_unless_configured()
application = create_app()
