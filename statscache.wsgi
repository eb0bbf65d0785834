# For mod_wsgi: WSGIScriptAlias / /usr/share/statscache/statscache.wsgi
from statscache.wsgi import application  # noqa: F401
