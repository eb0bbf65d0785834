"""The pages for people: what this is, each dataset, and a reference; made on the server.

They need no script and nothing from another host. Every example on them is answered by this very
server, in the same transaction as the page.
"""
