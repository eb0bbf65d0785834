"""The application for WSGI servers: ``gunicorn statscache.wsgi:application``."""

from statscache.app import create_app

application = create_app()
